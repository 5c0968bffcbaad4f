//! What every engine must agree on: the built-in one and ONNX Runtime give the same vectors for the same texts.
//!
//! `ATMO_TEST_ORT` names a library of ONNX Runtime; `make test` installs one.

use std::path::{Path, PathBuf};

use super::ort::OrtEmbedder;
use super::rten::RtenEmbedder;
use super::{EmbedError, Embedder};

/// Most that a component, or a cosine, may differ between engines.
const TOLERANCE: f32 = 1e-3;

/// The library to test with, or a word on why there is none.
fn library() -> Option<PathBuf> {
    let library = std::env::var_os("ATMO_TEST_ORT").filter(|path| !path.is_empty());
    if library.is_none() {
        println!("skipped: ONNX Runtime, because ATMO_TEST_ORT names no library of it");
    }
    library.map(PathBuf::from)
}

/// Forty texts: empty, of one character, short, over the limit of tokens, in other languages, code, and what is no text.
fn texts() -> Vec<String> {
    let short = [
        "",
        " \n\t ",
        "?",
        "hi",
        "Hello!",
        "write a function that removes duplicates from a list",
        "what is the capital of Mongolia",
        "summarise this meeting in three points",
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
        "draw a lighthouse in a storm",
        "turn the lights in the kitchen off",
        "Übersetze diesen Satz ins Englische.",
        "où se trouve la gare la plus proche",
        "¿cuánto cuesta un billete a Sevilla?",
        "напиши письмо моему начальнику",
        "明日の天気はどうですか",
        "把这段文字翻译成英文",
        "اكتب قصيدة عن البحر",
        "एक कविता लिखो",
        "γράψε μια ιστορία",
        "Viết một bài thơ ngắn",
        "fn main() { println!(\"{}\", 6 * 7); }",
        "SELECT name FROM people WHERE age > 40 ORDER BY name;",
        "\u{0}\u{fffd}\u{200b}",
        "🦀🦀🦀 🚀",
        "3.14159 26535 89793",
        "https://example.org/a?b=c#d",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ];
    let repeated =
        ["a long story about rain ", "x", "日", "word-", "é ", "1 2 3 ", "!", "𝔘nicode ", "the plan holds, ", "\u{301}"];
    let long = repeated.iter().zip([30, 2000, 300, 90, 95, 40, 94, 500, 4000, 64]).map(|(text, times)| text.repeat(times));
    short.map(str::to_owned).into_iter().chain(long).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

#[test]
fn both_engines_place_a_text_alike() {
    let Some(library) = library() else { return };
    let (ours, theirs) = (RtenEmbedder::load().unwrap(), OrtEmbedder::load(&library).unwrap());
    assert_eq!((ours.space(), ours.dims()), (theirs.space(), theirs.dims()));
    let texts = texts();
    assert_eq!(texts.len(), 40);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (a, b) = (ours.embed(&texts).unwrap(), theirs.embed(&texts).unwrap());
    let (mut farthest, mut least) = (0f32, 1f32);
    for (text, (a, b)) in texts.iter().zip(a.iter().zip(&b)) {
        assert!(
            distance(a, b) <= TOLERANCE && 1.0 - cosine(a, b) <= TOLERANCE,
            "{text:.40?}: {}, {}",
            distance(a, b),
            cosine(a, b)
        );
        (farthest, least) = (farthest.max(distance(a, b)), least.min(cosine(a, b)));
    }
    println!("at most {farthest:e} between components, cosine at least {least}");
}

#[test]
fn onnx_runtime_gives_a_text_one_vector_whatever_it_is_batched_with() {
    let Some(library) = library() else { return };
    let embedder = OrtEmbedder::load(&library).unwrap();
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = embedder.embed(&texts).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        let alone = &embedder.embed(&[text]).unwrap()[0];
        assert!(distance(alone, vector) <= TOLERANCE, "{text:.40?}: {}", distance(alone, vector));
        assert_eq!(vector.len(), embedder.dims());
    }
    assert!(embedder.embed(&[]).unwrap().is_empty());
}

#[test]
fn several_threads_may_ask_onnx_runtime_at_once() {
    let Some(library) = library() else { return };
    let embedder = OrtEmbedder::load(&library).unwrap();
    let texts = ["hi", "what is the capital of Mongolia"];
    let alone = texts.map(|text| embedder.embed(&[text]).unwrap());
    let (embedder, texts) = (&embedder, &texts);
    std::thread::scope(|scope| {
        let asking = [0, 1, 0, 1].map(|place| (place, scope.spawn(move || embedder.embed(&texts[place..=place]).unwrap())));
        for (place, vectors) in asking {
            assert_eq!(vectors.join().unwrap(), alone[place]);
        }
    });
}

#[test]
fn what_is_no_library_is_refused_and_does_not_stand_in_the_way_of_one() {
    let no_library = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for wrong in [Path::new("/nowhere/libonnxruntime.so"), Path::new("libonnxruntime.so"), &no_library, &no_library] {
        let error = OrtEmbedder::load(wrong).unwrap_err();
        assert!(matches!(error, EmbedError::Library(_)) && error.to_string().contains("ORT_DYLIB_PATH"), "{error}");
    }
    let Some(library) = library() else { return };
    drop(OrtEmbedder::load(&library).unwrap());
    let again = OrtEmbedder::load(&library).unwrap();
    assert_eq!(again.embed(&["hi"]).unwrap()[0].len(), again.dims());
    let error = OrtEmbedder::load(&no_library).unwrap_err();
    assert!(error.to_string().contains("already open"), "{error}");
}
