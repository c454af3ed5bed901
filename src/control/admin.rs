//! What monitoring reads: `/metrics`, `/healthz`, `/readyz`, as plain text. Nothing can be changed
//! here, so there is nothing to protect but what it says.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::time::timeout;

use super::message::{Ask, Asker, Reply};
use super::metrics::{self, Format};
use super::wire::{ServiceState, Status};

/// How long the loop may take to answer before it is said that it does not: far longer than any turn
/// of it, and shorter than who asks is likely to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is said of an answer to another question. The loop gives none; the types do not know.
const UNEXPECTED: &str = "shepherd answered something else";

/// What there is, as a service of axum; it asks the loop by `asker`. `HEAD` goes wherever `GET` does.
pub(super) fn router(asker: Asker) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(asker)
}

async fn show_metrics(State(asker): State<Asker>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    match ask(&asker, ANSWER_WITHIN, Ask::Metrics).await {
        Ok(Reply::Metrics(status, _, counters)) => {
            let page = metrics::page(status, counters, format);
            ([(header::CONTENT_TYPE, format.content_type())], page).into_response()
        }
        Ok(_) => unavailable(UNEXPECTED),
        Err(why) => unavailable(&why),
    }
}

async fn show_health(State(asker): State<Asker>) -> Response {
    match ask(&asker, ANSWER_WITHIN, Ask::Alive).await {
        Ok(_) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => unavailable(&why),
    }
}

async fn show_readiness(State(asker): State<Asker>) -> Response {
    match ask(&asker, ANSWER_WITHIN, Ask::Standing).await {
        Ok(Reply::Status(status, _)) => match reasons_not_ready(&status) {
            reasons if reasons.is_empty() => text(StatusCode::OK, "ready\n".to_owned()),
            reasons => unavailable(&reasons.join("\n")),
        },
        Ok(_) => unavailable(UNEXPECTED),
        Err(why) => unavailable(&why),
    }
}

async fn no_such_path(request: Request) -> Response {
    let path = request.uri().path();
    let told = format!("there is no `{path}`; there is /metrics, /healthz and /readyz\n");
    text(StatusCode::NOT_FOUND, told)
}

async fn wrong_method() -> Response {
    let told = "nothing can be changed here; use GET or HEAD\n";
    text(StatusCode::METHOD_NOT_ALLOWED, told.to_owned())
}

/// Asks the loop; gives why there is no answer.
async fn ask(asker: &Asker, within: Duration, ask: Ask) -> Result<Reply, String> {
    match timeout(within, asker.ask(ask)).await {
        Ok(answer) => answer.map_err(|problem| problem.detail),
        Err(_) => Err(format!("shepherd has not answered within {within:?}")),
    }
}

/// Why whoever sends requests here should send them elsewhere, a line each.
fn reasons_not_ready(status: &Status) -> Vec<String> {
    if status.daemon.stopping {
        return vec!["shepherd is stopping".to_owned()];
    }
    let reason = |state: &ServiceState| match state {
        ServiceState::Up | ServiceState::Reloading => None,
        ServiceState::Waiting => Some("waits for the services that it depends on"),
        ServiceState::Starting => Some("has not come up yet"),
        ServiceState::Failing => Some("is failing"),
        ServiceState::Stopping => Some("is being stopped"),
        ServiceState::Stopped => Some("is stopped"),
        ServiceState::Other(_) => Some("does not serve"),
    };
    let services = status.services.iter();
    services
        .filter_map(|service| Some(format!("{} {}", service.name, reason(&service.state)?)))
        .collect()
}

fn unavailable(why: &str) -> Response {
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

fn text(status: StatusCode, text: String) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::channel;
    use crate::control::wire::{Daemon, Service};
    use crate::os::wake::Wake;

    #[test]
    fn a_loop_that_does_not_answer_is_told_of() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (asker, calls) = channel(Wake::new().expect("a descriptor"));
            let why = ask(&asker, Duration::from_millis(10), Ask::Alive).await;
            assert_eq!(why, Err("shepherd has not answered within 10ms".to_owned()));
            // It hears of it later, and nobody waits any more.
            assert!(calls.try_recv().expect("the call").client.is_gone());
            drop(calls);
            let health = show_health(State(asker)).await;
            assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
        });
    }

    #[test]
    fn each_service_that_does_not_serve_is_a_reason() {
        use ServiceState::{Failing, Reloading, Starting, Stopped, Stopping, Up, Waiting};
        let states = [Up, Reloading, Waiting, Starting, Failing, Stopping, Stopped];
        let reasons = reasons_not_ready(&status(false, &states));
        assert_eq!(
            reasons,
            [
                "s2 waits for the services that it depends on",
                "s3 has not come up yet",
                "s4 is failing",
                "s5 is being stopped",
                "s6 is stopped",
            ]
        );
        assert_eq!(reasons_not_ready(&status(true, &[Up])), ["shepherd is stopping"]);
        assert!(reasons_not_ready(&status(false, &[Up, Reloading])).is_empty());
    }

    fn status(stopping: bool, states: &[ServiceState]) -> Status {
        let daemon = Daemon {
            name: "web".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 1,
            up: 1.0,
            stopping,
            drains_in: None,
            longest_turn: 0.0,
            file: None,
        };
        let service = |(number, state): (usize, &ServiceState)| Service {
            name: format!("s{number}"),
            state: state.clone(),
            wanted: 1,
            ready: 1,
            generation: 1,
            balance: None,
            dispatched: None,
            reloading: None,
            canary: None,
            probation: None,
            changed_over: None,
            queued: false,
            last_abort: None,
            waits_for: Vec::new(),
            restarts: 0,
            sockets: Vec::new(),
            workers: Vec::new(),
            backing_off: Vec::new(),
        };
        Status { daemon, services: states.iter().enumerate().map(service).collect() }
    }
}
