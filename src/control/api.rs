//! What can be asked over the control socket: one table, one function that answers.
//! It knows what requests look like and nothing of what they do.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as HttpBody, Frame};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::events::Batch;
use super::message::{Answer, Ask, Asker, Operation, Reply};
use super::wire::{self, Problem, ProblemKind};
use super::{openapi, problem};

/// The longest body of a request: many times the longest that makes sense.
pub const BODY_MAX: usize = 64 << 10;

/// How much of a body that is too long is read nevertheless, so that a client which writes all of it
/// before it reads gets the answer and not a broken pipe.
const DISCARDED_MAX: usize = 1 << 20;

/// How long a body may take to arrive, as long as a head.
pub const BODY_WITHIN: Duration = Duration::from_secs(10);

/// How long a reader of events waits when the loop's queue is full.
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// One thing that can be asked.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, its variable parts in braces.
    pub path: &'static str,
    what: What,
}

/// All that can be asked. `GET` is `HEAD` as well.
pub const ROUTES: &[Route] = &[
    Route { method: Method::GET, path: "/v1/status", what: What::Status },
    Route { method: Method::GET, path: "/v1/services/{name}", what: What::Service },
    Route { method: Method::GET, path: "/v1/config", what: What::Config },
    Route { method: Method::GET, path: "/v1/events", what: What::Events },
    Route { method: Method::POST, path: "/v1/reload", what: What::ReloadSome },
    Route { method: Method::POST, path: "/v1/rollback", what: What::RollBackSome },
    Route { method: Method::POST, path: "/v1/stop", what: What::StopAll },
    Route { method: Method::POST, path: "/v1/services/{name}/reload", what: What::Reload },
    Route { method: Method::POST, path: "/v1/services/{name}/rollback", what: What::RollBack },
    Route { method: Method::POST, path: "/v1/services/{name}/restart", what: What::Restart },
    Route { method: Method::POST, path: "/v1/services/{name}/stop", what: What::Stop },
    Route { method: Method::POST, path: "/v1/services/{name}/start", what: What::Start },
    Route { method: Method::POST, path: "/v1/services/{name}/scale", what: What::Scale },
    Route { method: Method::POST, path: "/v1/workers/{id}/signal", what: What::Signal },
    Route { method: Method::POST, path: "/v1/workers/{id}/message", what: What::Message },
    Route { method: Method::GET, path: "/openapi.json", what: What::OpenApi },
];

#[derive(Debug, Clone, Copy)]
enum What {
    Status,
    Service,
    Config,
    Events,
    ReloadSome,
    RollBackSome,
    StopAll,
    Reload,
    RollBack,
    Restart,
    Stop,
    Start,
    Scale,
    Signal,
    Message,
    OpenApi,
}

/// The table as a service of axum; it asks the loop by `asker`.
pub(super) fn router(asker: Asker) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let what = route.what;
        let answer = move |State(asker): State<Asker>, parameters, request: Request| async move {
            match answer(what, &asker, parameters, request).await {
                Ok(response) => response,
                Err(problem) => problem.into_response(),
            }
        };
        if let Ok(filter) = MethodFilter::try_from(route.method.clone()) {
            router = router.route(route.path, on(filter, answer));
        }
    }
    router.fallback(no_such_path).method_not_allowed_fallback(wrong_method).with_state(asker)
}

async fn no_such_path(request: Request) -> Problem {
    let detail =
        format!("there is no `{}`; `GET /openapi.json` says what there is", request.uri().path());
    problem::of(ProblemKind::NotFound, 404, detail)
}

async fn wrong_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    let allowed: Vec<&str> = ROUTES
        .iter()
        .filter(|route| matches(route.path, path))
        .map(|route| route.method.as_str())
        .collect();
    let detail = format!("`{path}` does not take {method}; use {}", allowed.join(" or "));
    problem::of(ProblemKind::BadRequest, 405, detail)
}

/// Whether a path of a request is one of these.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(wanted), Some(part)) if wanted.starts_with('{') || wanted == part => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

/// What a request that needs nothing may say: nothing.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

type Parameters = Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>;

async fn answer(
    what: What,
    asker: &Asker,
    parameters: Parameters,
    request: Request,
) -> Result<Response, Problem> {
    let parameter = || first(&parameters);
    let operation = match what {
        What::Status => return reply(asker.ask(Ask::Status).await),
        What::Config => return reply(asker.ask(Ask::Config).await),
        What::Service => return service(asker.ask(Ask::Status).await, parameter()?),
        What::Events => return events(asker, since(request.uri().query())?).await,
        What::OpenApi => return Ok(json_text(openapi::DOCUMENT)),
        What::ReloadSome => Operation::Reload(optional(request).await?),
        What::RollBackSome => Operation::RollBack(optional(request).await?),
        What::RollBack => {
            let services = vec![named(parameter()?, request).await?];
            Operation::RollBack(wire::RollBack { services })
        }
        What::Reload => {
            let name = parameter()?.to_owned();
            let body: wire::Reload = optional(request).await?;
            if !body.services.is_empty() {
                let detail = "`services` means nothing here: the path names the service; leave it \
                              out, or use `POST /v1/reload`";
                return Err(problem::of(ProblemKind::BadRequest, 400, detail));
            }
            Operation::Reload(wire::Reload { services: vec![name], ..body })
        }
        What::StopAll => {
            optional::<Nothing>(request).await?;
            Operation::StopAll
        }
        What::Restart => Operation::Restart(named(parameter()?, request).await?),
        What::Stop => Operation::Stop(named(parameter()?, request).await?),
        What::Start => Operation::Start(named(parameter()?, request).await?),
        What::Scale => Operation::Scale(parameter()?.to_owned(), required(request).await?),
        What::Signal => {
            let worker = worker(parameter()?)?;
            let wire::Signal { signal } = required(request).await?;
            Operation::Signal { worker, signal }
        }
        What::Message => {
            let worker = worker(parameter()?)?;
            let wire::Message { data } = required(request).await?;
            let data = data.get().to_owned();
            return reply(asker.ask(Ask::Send { worker, data }).await);
        }
    };
    reply(asker.ask(Ask::Do(operation)).await)
}

/// The variable part of the path; each path has one at most.
fn first(parameters: &Parameters) -> Result<&str, Problem> {
    match parameters {
        Ok(parameters) => Ok(parameters.iter().next().map_or("", |(_, value)| value)),
        Err(error) => Err(problem::of(ProblemKind::BadRequest, 400, error.body_text())),
    }
}

async fn named(name: &str, request: Request) -> Result<String, Problem> {
    optional::<Nothing>(request).await?;
    Ok(name.to_owned())
}

fn worker(text: &str) -> Result<u64, Problem> {
    let detail = || {
        format!("there is no worker `{text}`: workers have numbers, `GET /v1/status` shows them")
    };
    text.parse().map_err(|_| problem::of(ProblemKind::NotFound, 404, detail()))
}

fn since(query: Option<&str>) -> Result<Option<u64>, Problem> {
    let bad = |detail: String| Err(problem::of(ProblemKind::BadRequest, 400, detail));
    match query.filter(|query| !query.is_empty()) {
        None => Ok(None),
        Some(query) => match query.strip_prefix("since=").map(str::parse) {
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => {
                bad(format!("`{query}` has no number of an event; write one such as `since=7`"))
            }
            None => bad(format!("`{query}` means nothing here; there is `since=NUMBER`")),
        },
    }
}

fn reply(answer: Answer) -> Result<Response, Problem> {
    match answer? {
        Reply::Status(status, _) => Ok(json(&status)),
        Reply::Config(config) => Ok(json(&config)),
        Reply::Sent(sent) => Ok(json(&sent)),
        Reply::Done(done) => Ok(json(&done)),
        Reply::Metrics(..) | Reply::Alive => {
            Err(problem::of(ProblemKind::Failed, 500, "the daemon answered something else"))
        }
        Reply::Events(batch) => Ok(lines(Full::new(Bytes::from(batch.lines)))),
    }
}

fn service(answer: Answer, name: &str) -> Result<Response, Problem> {
    let Reply::Status(status, _) = answer? else {
        return Err(problem::of(ProblemKind::Failed, 500, "the daemon did not say"));
    };
    if let Some(service) = status.services.iter().find(|service| service.name == name) {
        return Ok(json(service));
    }
    let names: Vec<&str> = status.services.iter().map(|it| it.name.as_str()).collect();
    let detail = format!("there is no service `{name}`; there is {}", names.join(", "));
    let service = Some(name.to_owned());
    Err(Problem { service, ..problem::of(ProblemKind::NotFound, 404, detail) })
}

async fn events(asker: &Asker, since: Option<u64>) -> Result<Response, Problem> {
    // Where it begins is settled before the response does: what happens after that is in it.
    let Reply::Events(first) = asker.ask(Ask::EventsFrom(since)).await? else {
        return Err(problem::of(ProblemKind::Failed, 500, "the daemon did not say"));
    };
    let next: Option<NextBatch> = Some(Box::pin(std::future::ready(Some(first))));
    Ok(lines(Lines { asker: asker.clone(), next }))
}

type NextBatch = Pin<Box<dyn Future<Output = Option<Batch>> + Send>>;

/// What happens, as the body of a response: the next batch is asked for once the last one is
/// written. So a reader that does not read costs no memory.
struct Lines {
    asker: Asker,
    /// None after the end.
    next: Option<NextBatch>,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let Some(next) = &mut self.next else {
                return Poll::Ready(None);
            };
            let Some(batch) = ready!(next.as_mut().poll(context)) else {
                self.next = None;
                continue;
            };
            self.next = (!batch.is_end).then(|| {
                let asker = self.asker.clone();
                let next: NextBatch = Box::pin(async move { after(&asker, batch.last).await });
                next
            });
            if !batch.lines.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(batch.lines)))));
            }
        }
    }
}

async fn after(asker: &Asker, last: u64) -> Option<Batch> {
    loop {
        match asker.ask(Ask::EventsAfter(last)).await {
            Ok(Reply::Events(batch)) => return Some(batch),
            Err(Problem { kind: ProblemKind::TooBusy, .. }) => sleep(BUSY_WAIT).await,
            Ok(
                Reply::Status(..)
                | Reply::Metrics(..)
                | Reply::Alive
                | Reply::Config(_)
                | Reply::Sent(_)
                | Reply::Done(_),
            )
            | Err(_) => return None,
        }
    }
}

fn lines(
    body: impl HttpBody<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
) -> Response {
    let media_type = HeaderValue::from_static("application/jsonl");
    ([(header::CONTENT_TYPE, media_type)], Body::new(body)).into_response()
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, JSON)], body).into_response(),
        Err(error) => problem::of(ProblemKind::Failed, 500, error.to_string()).into_response(),
    }
}

fn json_text(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, JSON)], text).into_response()
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The body of a request that may be left out.
async fn optional<T: DeserializeOwned + Default>(request: Request) -> Result<T, Problem> {
    let (body, is_json) = read(request).await?;
    if body.is_empty() { Ok(T::default()) } else { parse(&body, is_json) }
}

/// The body of a request that has to be there.
async fn required<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (body, is_json) = read(request).await?;
    parse(&body, is_json || body.is_empty())
}

fn parse<T: DeserializeOwned>(body: &[u8], is_json: bool) -> Result<T, Problem> {
    if !is_json {
        let detail = "the body is not declared as JSON; send `Content-Type: application/json`";
        return Err(problem::of(ProblemKind::BadRequest, 415, detail));
    }
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("cannot read the body: {error}; `GET /openapi.json` describes it");
        problem::of(ProblemKind::BadRequest, 400, detail)
    })
}

/// The whole body, and whether it says that it is JSON.
async fn read(request: Request) -> Result<(Vec<u8>, bool), Problem> {
    let media_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let is_json = essence.eq_ignore_ascii_case("application/json");
    match timeout(BODY_WITHIN, collect(request.into_body())).await {
        Ok(Ok(body)) => Ok((body, is_json)),
        Ok(Err(problem)) => Err(problem),
        Err(_) => {
            let detail = format!("the body did not arrive within {BODY_WITHIN:?}");
            Err(problem::of(ProblemKind::BadRequest, 408, detail))
        }
    }
}

async fn collect(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let detail = format!("cannot read the body: {error}");
            problem::of(ProblemKind::BadRequest, 400, detail)
        })?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        length += data.len();
        if length <= BODY_MAX {
            bytes.extend_from_slice(data);
        } else if length > DISCARDED_MAX {
            break;
        }
    }
    if length <= BODY_MAX {
        return Ok(bytes);
    }
    let detail = format!("the body is longer than {BODY_MAX} bytes");
    Err(problem::of(ProblemKind::BadRequest, 413, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_matches_paths_of_its_own_and_no_others() {
        assert!(matches("/v1/services/{name}/reload", "/v1/services/web/reload"));
        assert!(!matches("/v1/services/{name}/reload", "/v1/services/web"));
        assert!(!matches("/v1/services/{name}", "/v1/services/web/reload"));
        assert!(!matches("/v1/status", "/v1/config"));
    }

    #[test]
    fn a_query_is_a_number_or_is_refused() {
        assert_eq!(since(None), Ok(None));
        assert_eq!(since(Some("")), Ok(None));
        assert_eq!(since(Some("since=7")), Ok(Some(7)));
        for wrong in ["since=", "since=-1", "since=7&x=1", "after=7", "since=99999999999999999999"]
        {
            assert!(since(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
