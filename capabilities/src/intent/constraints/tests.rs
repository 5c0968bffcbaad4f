use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A value that each name takes, as text and as JSON.
fn examples() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("model", "llama3.1:8b", json!("llama3.1:8b")),
        ("type", "llm, rag", json!(["llm", "rag"])),
        ("node", "kitchen", json!(["kitchen"])),
        ("not_node", "attic,barn", json!("attic,barn")),
        ("label", "gpu,zone=eu", json!(["gpu", "zone=eu"])),
        ("residency", "de", json!(["de"])),
        ("local_only", "true", json!(true)),
        ("tools", "TRUE", json!(true)),
        ("vision", "true", json!(true)),
        ("context_tokens", "9000", json!(9000)),
        ("max_cost", "0.02", json!(0.02)),
        ("max_latency_ms", "800", json!(800)),
        ("min_quality", "0.5", json!(0.5)),
        ("require_free", "true", json!(true)),
    ]
}

#[test]
fn a_flag_a_header_and_a_body_mean_the_same_under_every_name() {
    assert!(examples().iter().map(|(name, ..)| *name).eq(Constraints::names()));
    for (name, text, value) in examples() {
        let read = |read: &dyn Fn(&mut Constraints) -> Result<(), ConstraintError>| {
            let mut constraints = Constraints::default();
            read(&mut constraints).unwrap();
            constraints
        };
        let flag = read(&|constraints| constraints.set(&name.replace('_', "-"), text));
        let header = read(&|constraints| {
            let header = format!("X-Atmo-{}", name.replace('_', "-").to_uppercase());
            constraints.set_header(&header, text).map(|is_one| assert!(is_one))
        });
        let body = read(&|constraints| constraints.set_json(&json!({ name: value })));
        assert_ne!(flag, Constraints::default(), "{name}");
        assert!(flag == header && flag == body, "{name}: {flag:?} {body:?}");
    }
}

#[test]
fn the_table_in_the_documentation_has_every_name() {
    let rows: Vec<&str> =
        include_str!("../constraints.rs").lines().filter_map(|line| line.strip_prefix("/// | `")?.split('`').next()).collect();
    assert_eq!(rows, Constraints::names().collect::<Vec<_>>());
}

#[test]
fn errors_name_the_field_what_it_got_and_what_is_allowed() {
    let refused = |name: &str, value: Value| Constraints::default().set_json(&json!({ name: value })).unwrap_err().to_string();
    for (name, value, allowed) in [
        ("max_cost", json!("cheap"), "an amount of money"),
        ("max_cost", json!(-1), "an amount of money"),
        ("max_cost", json!("NaN"), "an amount of money"),
        ("max_latency_ms", json!(0), "milliseconds"),
        ("max_latency_ms", json!(1.5), "milliseconds"),
        ("min_quality", json!(1.1), "from 0 to 1"),
        ("context_tokens", json!("many"), "tokens"),
        ("local_only", json!("maybe"), "true or false"),
        ("require_free", json!([true]), "true or false"),
        ("label", json!("=eu"), "key=value"),
        ("label", json!([7]), "key=value"),
        ("node", json!(""), "names"),
        ("max_price", json!(1), "max_cost"),
    ] {
        let error = refused(name, value.clone());
        assert!(error.starts_with(&format!("`atmo.{name}`: got ")) && error.contains(allowed), "{error}");
    }
    assert!(Constraints::default().set_json(&json!([])).unwrap_err().to_string().starts_with("`atmo`"));
    let header = Constraints::default().set_header("x-atmo-max-cost", "cheap").unwrap_err().to_string();
    assert!(header.starts_with("`x-atmo-max-cost`: got \"cheap\"; allowed: an amount of money"), "{header}");
    assert!(Constraints::default().set_header("x-atmo-max-price", "1").unwrap_err().allowed.contains("max_cost"));
    assert_eq!(
        ["accept", "x-atmö", ""].map(|other| Constraints::default().set_header(other, "1")),
        [Ok(false), Ok(false), Ok(false)]
    );
    assert!(refused("node", json!("x".repeat(9_999))).len() < 200);
    let crowd = (0..=LIST_MAX).map(|number| format!("n{number}")).collect::<Vec<_>>().join(",");
    assert!(Constraints::default().set("node", &crowd).is_err());
}

#[test]
fn the_tighter_of_two_counts_and_false_asks_for_nothing() {
    let mut constraints = Constraints::default();
    for (name, value) in
        [("max_cost", "2"), ("max_cost", "3"), ("min_quality", "0.4"), ("min_quality", "0.2"), ("tools", "false")]
    {
        constraints.set(name, value).unwrap();
    }
    assert_eq!(constraints, Constraints { max_cost_micros: Some(2_000_000), min_quality: Some(0.4), ..Constraints::default() });
    constraints.set_json(&json!({ "max_cost": null, "label": { "zone": "eu" } })).unwrap();
    assert!(constraints.labels[0].is_among(&[("zone".into(), "eu".into())]));
    assert!(!constraints.labels[0].is_among(&[("zone".into(), "us".into())]));
}

proptest! {
    #[test]
    fn a_budget_is_read_to_the_millionth(micros in 0u64..1_000_000_000_000) {
        let mut constraints = Constraints::default();
        constraints.set("max_cost", &format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)).unwrap();
        prop_assert_eq!(constraints.max_cost_micros, Some(micros));
    }

    #[test]
    fn any_text_is_read_or_refused(name in any::<String>(), value in any::<String>(), which in 0usize..14) {
        let known = Constraints::names().nth(which).expect("there are fourteen names");
        _ = Constraints::default().set(known, &value);
        _ = Constraints::default().set_json(&json!({ name.as_str(): value.as_str(), known: [value] }));
        _ = Constraints::default().set(&name, &value);
    }
}
