//! What is found on loopback, told apart by what it answers.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use atmo_adapters::discover::{Discovery, Protocol};

use crate::harness::cases;
use crate::mock::{self, Answer, Mock};
use crate::servers::{llamafarm, ollama};

cases![engines_are_told_apart_by_what_they_answer, looking_is_bounded_and_never_infers];

async fn engines_are_told_apart_by_what_they_answer() {
    let shows = AtomicUsize::new(0);
    let mocks = [
        Mock::start(move |request| ollama(request, &shows)).await,
        Mock::start(llamafarm).await,
        Mock::start(mock::openai).await,
        Mock::start(|_| Answer::html()).await,
        Mock::start(|_| Answer::missing()).await,
        Mock::start(|_| Answer::json(r#"{"object":"list","data":[{"id":"x","owned_by":"atmo"}]}"#)).await,
        Mock::start(mock::openai).await,
    ];
    let urls = mocks.iter().map(|mock| mock.url.clone()).collect();
    let mut discovery = Discovery::among(urls, &[mocks[6].port]);
    let found = discovery.look().await;
    let protocols: Vec<Protocol> = found.iter().map(|found| found.protocol).collect();
    assert_eq!(protocols, [Protocol::Ollama, Protocol::LlamaFarm, Protocol::OpenAi]);
    for found in &found {
        assert!(!found.backend.describe().await.expect("what was found answers").offers.is_empty(), "{found:?}");
    }
    let again = discovery.look().await;
    assert!(
        found.iter().zip(&again).all(|(first, second)| Arc::ptr_eq(&first.backend, &second.backend)),
        "a found engine stays the same"
    );
    assert!(mocks[6].asked("/v1/models").is_empty(), "own ports are never asked");
}

async fn looking_is_bounded_and_never_infers() {
    let (silent, open) = (Mock::start(|_| Answer::Silence).await, Mock::start(mock::openai).await);
    let start = Instant::now();
    let found = Discovery::among(vec![silent.url.clone(), open.url.clone(), "http://127.0.0.1:9".into()], &[]).look().await;
    assert!(start.elapsed() < Duration::from_millis(900), "it took {:?}", start.elapsed());
    assert_eq!(found.len(), 1);
    assert!(open.asked("/v1/chat/completions").is_empty());
}
