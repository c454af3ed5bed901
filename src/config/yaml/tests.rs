//! The two readings of a text agree, and places are where things stand.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn tree(text: &str) -> Node {
    parse(text).expect("readable").expect("a value")
}

/// Every scalar and key with the text at its place.
fn places<'a>(node: &'a Node, text: &'a str, found: &mut Vec<(&'a str, &'a str)>) {
    match &node.is {
        Is::Nothing | Is::Broken => {}
        Is::Scalar(scalar) => found.push((scalar, &text[node.at.start..node.at.end])),
        Is::List(items) => items.iter().for_each(|item| places(item, text, found)),
        Is::Map(entries) => {
            for (key, value) in entries {
                found.push((&key.name, &text[key.at.start..key.at.end]));
                places(value, text, found);
            }
        }
    }
}

#[test]
fn values_stand_where_their_places_say() {
    let text = "\
# a comment
\u{e4}: &x [1, 0660, yes, \"q\\u0041\", 'it''s']
list:
- a b
-  - 1.50
   -
m: {k: v, n: ~}
alias: *x
\"key\": |
  block
";
    let node = tree(text);
    let mut found = Vec::new();
    places(&node, text, &mut found);
    let plain = |name: &&'static str| (*name, *name);
    let mut expected: Vec<(&str, &str)> =
        ["\u{e4}", "1", "0660", "yes"].iter().map(plain).collect();
    expected.extend([("qA", "\"q\\u0041\""), ("it's", "'it''s'")]);
    expected.extend(
        ["list", "a b", "1.50", "m", "k", "v", "n", "alias", "1", "0660", "yes"].iter().map(plain),
    );
    expected.extend([("qA", "\"q\\u0041\""), ("it's", "'it''s'"), ("key", "\"key\"")]);
    assert_eq!(found[..found.len() - 1], expected);
    assert_eq!(found.last().expect("the block").0, "block\n");
}

#[test]
fn both_keys_of_a_name_are_kept() {
    let Is::Map(entries) = tree("a: 1\na: 2\n").is else { panic!("a map") };
    let names: Vec<_> = entries.iter().map(|(key, _)| (key.name.as_str(), key.at.start)).collect();
    assert_eq!(names, [("a", 0), ("a", 5)]);
}

#[test]
fn merge_keys_bring_what_is_not_there() {
    let text = "a: &a {x: 1, y: 2}\nb: &b {z: 3, y: 4}\nc: {<<: [*a, *b], x: 9}\nd: {<<: 5}\n";
    let Is::Map(entries) = tree(text).is else { panic!("a map") };
    let keys = |node: &Node| match &node.is {
        Is::Map(entries) => entries
            .iter()
            .map(|(key, value)| format!("{}={:?}", key.name, value.is))
            .collect::<Vec<_>>()
            .join(" "),
        other => format!("{other:?}"),
    };
    let scalar = |text: &str| format!("{:?}", Is::Scalar(text.to_owned()));
    let expected = format!("x={} y={} z={}", scalar("9"), scalar("2"), scalar("3"));
    assert_eq!(keys(&entries[2].1), expected);
    assert_eq!(keys(&entries[3].1), format!("<<={}", scalar("5")));
}

#[test]
fn a_text_without_a_value_has_none() {
    for text in ["", "\n\n", "# only a comment\n", "---\n"] {
        let node = parse(text).expect("readable");
        assert!(node.is_none_or(|node| node.is == Is::Nothing), "{text:?}");
    }
}

#[test]
fn what_repeats_itself_is_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").expect("written");
    }
    assert!(parse(&bomb).expect_err("bounded").what.contains("more than 100000 values"));
    let deep = "[".repeat(500) + &"]".repeat(500);
    assert!(parse(&deep).is_err());
    assert!(parse("a: &a [*a]").is_err());
}

/// Ends of lines in YAML 1.1, which are none in 1.2.
const OLD_LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

#[test]
fn what_can_be_read_in_two_ways_is_refused_and_can_be_escaped() {
    let mistake = parse("a: 'x\u{85}y'").expect_err("a space, or what it is");
    assert!(mistake.what.contains("in two ways"), "{mistake:?}");
    let Is::Map(entries) = tree("a: \"x\\u0085y\"").is else { panic!("a map") };
    assert_eq!(entries[0].1.is, Is::Scalar("x\u{85}y".to_owned()));
}

/// Texts that look like YAML more often than any text does.
fn yaml_like() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z0-9~]{1,4}",
        "[ \\n:\\-,\\[\\]{}#&*!|>'\"%@`\\t?$\\\\\r]{1,3}",
        Just(": ".to_owned()),
        Just("\n  ".to_owned()),
        Just("\n- ".to_owned()),
        Just("\u{e4}\u{1f411}".to_owned()),
        Just("\u{feff}".to_owned()),
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// A value, as serde_yaml would write it.
fn values() -> impl Strategy<Value = serde_yaml::Value> {
    use serde_yaml::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(|text| Value::from(text.replace(OLD_LINE_ENDS, "x"))),
        "[ -~\n]{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[a-z ]{1,6}", inner, 0..5).prop_map(|map| {
                Value::Mapping(
                    map.into_iter().map(|(key, value)| (Value::from(key), value)).collect(),
                )
            }),
        ]
    })
}

fn same(node: &Node, value: &serde_yaml::Value) -> bool {
    use serde_yaml::Value;
    match (&node.is, value) {
        (Is::Nothing, Value::Null) => true,
        (Is::Scalar(text), Value::Bool(truth)) => *text == truth.to_string(),
        (Is::Scalar(text), Value::Number(number)) => *text == number.to_string(),
        (Is::Scalar(text), Value::String(string)) => text == string,
        (Is::List(items), Value::Sequence(values)) => {
            items.len() == values.len()
                && items.iter().zip(values).all(|(item, value)| same(item, value))
        }
        (Is::Map(entries), Value::Mapping(map)) => {
            entries.len() == map.len()
                && entries.iter().zip(map).all(|((key, node), (name, value))| {
                    name.as_str() == Some(&key.name) && same(node, value)
                })
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_or_refused_at_a_place_inside_of_it(text in prop_oneof![yaml_like(), "\\PC{0,40}"]) {
        match parse(&text) {
            Ok(None) => {}
            Ok(Some(node)) => inside(&node, &text)?,
            Err(mistake) => {
                let at = mistake.at.expect("a place");
                prop_assert!(at.start <= at.end && at.end <= text.len());
                prop_assert!(text.get(at.start..at.end).is_some());
            }
        }
    }

    #[test]
    fn the_two_readings_of_what_serde_yaml_writes_agree(value in values()) {
        let text = serde_yaml::to_string(&value).expect("written");
        match parse(&text) {
            Ok(Some(node)) => prop_assert!(same(&node, &value), "{}\n{:?}", text, node),
            other => prop_assert!(false, "{}\n{:?}", text, other),
        }
    }
}

fn inside(node: &Node, text: &str) -> Result<(), TestCaseError> {
    prop_assert!(text.get(node.at.start..node.at.end).is_some(), "{:?}", node);
    match &node.is {
        Is::Nothing | Is::Broken | Is::Scalar(_) => Ok(()),
        Is::List(items) => items.iter().try_for_each(|item| inside(item, text)),
        Is::Map(entries) => entries.iter().try_for_each(|(key, value)| {
            prop_assert!(text.get(key.at.start..key.at.end).is_some());
            inside(value, text)
        }),
    }
}
