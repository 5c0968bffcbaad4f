//! Hard constraints mean the same wherever they are written: as flags of a command, headers of a request, or its `atmo` object.

use serde_json::{Value, json};

use crate::support::node::client;
use crate::support::{MockOpenAi, Node, Setup, mesh};

/// A free model here, and on another node one that costs money, is better, is labelled and takes images.
struct Pair {
    engines: [MockOpenAi; 2],
    here: Node,
    _there: Node,
}

async fn pair() -> Pair {
    let engines = [MockOpenAi::start("plain", &["plain-model"]).await, MockOpenAi::start("dear", &["dear-model"]).await];
    let here = Setup::new("here").config(&format!("{}quality = 0.3\n", engines[0].config())).start().await;
    let dear = format!(
        "[labels]\nzone = \"eu\"\nresidency = \"de\"\n{}quality = 0.9\nprompt_cost = 1000\ncompletion_cost = 1000\n",
        engines[1].config()
    );
    let there = Setup::new("there").config(&dear).start().await;
    mesh::form(&here, &[&there]).await;
    mesh::offers(&here, "dear-model").await;
    mesh::offers(&here, "plain-model").await;
    Pair { engines, here, _there: there }
}

/// What was asked in, and which model answered; `None` where nothing fits.
type Outcome = Option<String>;

impl Pair {
    async fn by_flags(&self, flags: &[&str]) -> Outcome {
        let route = self.here.atmo(&[&["route", "--json", "tell me a story"], flags].concat()).await;
        let chosen = &route.printed()["chosen"];
        assert_eq!(route.code, Some(if chosen.is_null() { 3 } else { 0 }), "{route}");
        chosen["model"].as_str().map(str::to_owned)
    }

    async fn post(&self, headers: &[(&str, &str)], atmo: Option<Value>) -> reqwest::Response {
        let mut body = json!({"model": "auto", "messages": [{"role": "user", "content": "tell me a story"}]});
        if let Some(atmo) = atmo {
            body["atmo"] = atmo;
        }
        let mut request = client().post(self.here.url("/v1/chat/completions")).json(&body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("the endpoint answers")
    }

    async fn answered(&self, headers: &[(&str, &str)], atmo: Option<Value>) -> Outcome {
        let answer = self.post(headers, atmo).await;
        if answer.status() == 404 {
            let error: Value = answer.json().await.expect("an error is JSON");
            assert_eq!(error["error"]["code"], "nothing_fits", "{error}");
            return None;
        }
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.expect("an answer is JSON");
        body["model"].as_str().map(str::to_owned)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_constraint_means_the_same_as_flag_header_and_body() {
    let pair = pair().await;
    let (plain, dear) = (Some("plain-model".to_owned()), Some("dear-model".to_owned()));
    let nothing = None;
    let cases: [(&str, &str, &Outcome); 15] = [
        ("require_free", "true", &plain),
        ("max_cost", "0.000001", &plain),
        ("min_quality", "0.8", &dear),
        ("min_quality", "0.95", &nothing),
        ("label", "zone=eu", &dear),
        ("label", "zone=us", &nothing),
        ("residency", "de", &dear),
        ("residency", "fr", &nothing),
        ("node", "there", &dear),
        ("not_node", "there", &plain),
        ("local_only", "true", &plain),
        ("type", "llm", &plain),
        ("type", "embedding", &nothing),
        ("max_latency_ms", "1", &nothing),
        ("vision", "true", &nothing),
    ];
    for (name, value, wanted) in cases {
        let flag = format!("--{}", name.replace('_', "-"));
        let is_switch = value == "true";
        let flags: Vec<&str> = if is_switch { vec![&flag] } else { vec![&flag, value] };
        let header = format!("x-atmo-{}", name.replace('_', "-"));
        let written: Value = if is_switch { true.into() } else { serde_json::from_str(value).unwrap_or_else(|_| value.into()) };
        let outcomes = [
            pair.by_flags(&flags).await,
            pair.answered(&[(&header, value)], None).await,
            pair.answered(&[], Some(json!({ name: written }))).await,
        ];
        // Where both would do, either may be drawn; what was asked for by type is the one case of that.
        for outcome in &outcomes {
            assert!(outcome == wanted || (name == "type" && value == "llm" && outcome.is_some()), "{name} {value}: {outcomes:?}");
        }
    }
}

/// What an owner pays for electricity is announced, counts against a budget on another node, and is shown there.
#[tokio::test(flavor = "multi_thread")]
async fn electricity_is_part_of_what_a_request_costs() {
    let engine = MockOpenAi::start("engine", &["drawing-model"]).await;
    // 3,600 joules for 1,000 tokens: a thousandth of a kilowatt-hour.
    let energy = "energy = { joules_per_1k_tokens = 3600, price_per_kwh = 0.5 }\n";
    let there = Setup::new("there").config(&format!("{}{energy}", engine.config())).start().await;
    let here = Setup::new("here").start().await;
    mesh::form(&here, &[&there]).await;
    mesh::offers(&here, "drawing-model").await;
    let route = async |flags: &[&str]| here.atmo(&[&["route", "--json", "tell me a story"], flags].concat()).await.printed();
    let chosen = route(&[]).await["candidates"][0].clone();
    let (energy, cost) = (chosen["energy_micros"].as_u64(), chosen["cost_micros"].as_u64());
    assert!(energy > Some(500) && energy == cost, "an answer of some 1,000 tokens at 500 millionths: {chosen}");
    assert!(chosen["factors"]["cost"].as_f64() < Some(1.0), "{chosen}");
    for (flags, name) in [(vec!["--max-cost", "0.0005"], "max_cost"), (vec!["--require-free"], "require_free")] {
        let refused = route(&flags).await;
        assert_eq!(refused["excluded"][0]["by"], name, "{refused}");
        assert!(refused["excluded"][0]["reason"].as_str().is_some_and(|reason| reason.contains("electricity")), "{refused}");
    }
    assert!(route(&["--max-cost", "0.0007"]).await["chosen"].is_object());
    here.atmo(&["route", "--explain", "tell me a story"]).await.says(&["electricity"]);
}

/// What a model does not say of its context is not held against it; the built-in one says how short it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_is_too_short_is_left_out() {
    let node = Setup::new("node").built_in().start().await;
    mesh::any_model(&node).await;
    assert_eq!(node.atmo(&["route", "--context-tokens", "500", "hello"]).await.code, Some(0));
    let long = node.atmo(&["route", "--context-tokens", "500000", "hello"]).await;
    assert_eq!(long.code, Some(3), "{long}");
    long.says(&["500000"]);
}

/// Engines are not asked what only a node understands, and a wrong constraint is named before anybody is asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_atmo_object_stays_here_and_a_wrong_one_is_named() {
    let pair = pair().await;
    assert!(pair.answered(&[], Some(json!({"require_free": true}))).await.is_some());
    assert!(pair.engines[0].requests().iter().all(|request| request.get("atmo").is_none()));
    let asked = pair.engines[0].requests().len();
    for (headers, atmo, named) in [
        (vec![], Some(json!({"max_cost": "cheap"})), "atmo.max_cost"),
        (vec![], Some(json!({"colour": "red"})), "atmo.colour"),
        (vec![("x-atmo-min-quality", "7")], None, "x-atmo-min-quality"),
        (vec![("x-atmo-invented", "1")], None, "x-atmo-invented"),
    ] {
        let answer = pair.post(&headers, atmo).await;
        assert_eq!(answer.status(), 400);
        let error: Value = answer.json().await.expect("an error is JSON");
        assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains(named)), "{error}");
    }
    assert_eq!(pair.engines[0].requests().len(), asked);
    let wrong = pair.here.atmo(&["route", "--max-cost", "cheap", "hi"]).await;
    assert_eq!(wrong.code, Some(2), "{wrong}");
    wrong.says(&["--max-cost"]);
}

/// For people: who, why, who next, and what was left out and why.
#[tokio::test(flavor = "multi_thread")]
async fn an_explained_route_fits_a_screen_and_adds_up() {
    let pair = pair().await;
    let told = pair.here.atmo(&["route", "--explain", "--require-free", "tell me a story"]).await;
    assert_eq!(told.code, Some(0), "{told}");
    assert!(told.stdout.contains("plain-model") && told.stdout.contains("require_free"), "{told}");
    assert!(told.stdout.lines().count() <= 40 && told.stdout.lines().all(|line| line.chars().count() <= 100), "{told}");
    let route = pair.here.json(&["route", "tell me a story"]).await;
    for candidate in route["candidates"].as_array().expect("candidates are a list") {
        let factors = candidate["factors"].as_object().expect("factors are named");
        let product: f64 = factors.values().filter_map(Value::as_f64).product();
        let score = candidate["score"].as_f64().expect("a score is a number");
        assert!((product - score).abs() < 1e-3 * score.max(1e-3), "{candidate}");
    }
}
