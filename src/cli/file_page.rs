//! shepherd.yaml(5), from the schema: what is said of a key is said once.

use roff::{Roff, bold, italic, roman};
use serde_json::Value;

use crate::config::{listen, schema};

const EXAMPLE: &str = include_str!("../../examples/shepherd.yaml");

const SAID: &str = "\
Everything is read before anything is started, and all mistakes are told at once, each with its line: \
`shepherd check` does so without starting anything. Durations are numbers with a unit: 500ms, 30s, \
1m30s, 2h. Anchors, aliases and `<<` work as everywhere in YAML. An editor that knows \
yaml-language-server completes and checks the file when its first line is `# yaml-language-server: \
$schema=shepherd.schema.json` and `shepherd schema` has written that file.";

/// The page.
pub(super) fn page() -> Vec<u8> {
    let schema = schema::json_schema();
    let at = |pointer: &str| schema.pointer(pointer).cloned().unwrap_or_default();
    let mut roff = Roff::new();
    let source = concat!("shepherd ", env!("CARGO_PKG_VERSION"));
    // A date would change from build to build.
    roff.control("TH", ["shepherd.yaml", "5", "", source, "shepherd"]);
    roff.control("SH", ["NAME"]).text([roman("shepherd.yaml - what shepherd runs, in a file")]);
    roff.control("SH", ["SYNOPSIS"]);
    for (words, argument) in [("shepherd run -c", "FILE"), ("shepherd check", "FILE")] {
        roff.text([bold(words), roman(" "), italic(argument)]).control("br", []);
    }
    roff.control("SH", ["DESCRIPTION"]).text([roman(said(&schema))]);
    roff.control("PP", []).text([roman(SAID)]);
    keys(&mut roff, "KEYS", &at("/properties"), schema::File::KEYS);
    let of_a_service = at("/$defs/Service/properties");
    keys(&mut roff, "KEYS OF A SERVICE", &of_a_service, schema::Service::KEYS);
    let of_drain = at("/$defs/DrainKeys/properties");
    keys(&mut roff, "KEYS OF DRAIN", &of_drain, schema::DrainKeys::KEYS);
    let of_reload = at("/$defs/ReloadKeys/properties");
    keys(&mut roff, "KEYS OF RELOAD", &of_reload, schema::ReloadKeys::KEYS);
    let of_upstreams = at("/$defs/UpstreamsKeys/properties");
    keys(&mut roff, "KEYS OF UPSTREAMS", &of_upstreams, schema::UpstreamsKeys::KEYS);
    let ways = at("/$defs/Listen/anyOf");
    let map = ways.as_array().and_then(|ways| ways.iter().find_map(|way| way.get("properties")));
    keys(&mut roff, "KEYS OF A SOCKET", map.unwrap_or(&Value::Null), &listen::keys());
    roff.control("SH", ["EXAMPLE"]).control("nf", []);
    for line in EXAMPLE.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []).control("SH", ["SEE ALSO"]);
    roff.text([bold("shepherd"), roman("(1), "), bold("shepherd-run"), roman("(1), ")]);
    roff.text([bold("shepherd-check"), roman("(1)")]);
    roff.render().into_bytes()
}

fn keys(roff: &mut Roff, heading: &str, properties: &Value, names: &[&str]) {
    roff.control("SH", [heading]);
    for name in names {
        roff.control("TP", []).text([bold(*name)]).text([roman(said(&properties[*name]))]);
    }
}

fn said(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_on_the_page_with_what_is_said_of_it() {
        let page = String::from_utf8(page()).expect("text");
        let keys = schema::File::KEYS.iter().chain(schema::Service::KEYS).copied();
        let keys = keys.chain(schema::DrainKeys::KEYS.iter().copied());
        let keys = keys.chain(schema::ReloadKeys::KEYS.iter().copied());
        let keys = keys.chain(schema::UpstreamsKeys::KEYS.iter().copied());
        for key in keys.chain(listen::keys()) {
            let entry = page.split(&format!(".TP\n\\fB{key}\\fR\n")).nth(1);
            let said = entry.and_then(|entry| entry.lines().next()).unwrap_or_default();
            assert!(said.len() > 10, "{key}: {said}");
        }
    }
}
