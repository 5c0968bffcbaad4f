use std::collections::BTreeMap;

use super::*;

fn resolve(flags: Flags, environment: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let file = ConfigFile::parse(file).expect("the test's file is well formed");
    Config::resolve("/data".into(), &flags, &|variable| environment.get(variable).cloned(), file)
}

fn flags(change: impl FnOnce(&mut Flags)) -> Flags {
    let mut flags = Flags::default();
    change(&mut flags);
    flags
}

fn parse_error(text: &str) -> String {
    ConfigFile::parse(text).unwrap_err().to_string()
}

#[test]
fn nothing_said_gives_the_defaults() {
    let config = resolve(Flags::default(), &[], "").unwrap();
    assert_eq!(config.mode, Mode::Participant);
    assert_eq!(config.api, Api { address: "127.0.0.1:11451".parse().unwrap(), explicit: false });
    assert!(!config.listen.explicit && config.listen.addresses.len() == 4);
    assert!(config.mdns && config.discover && config.builtin);
    assert!(!config.name.is_empty());
    assert_eq!((config.join, config.log.as_str()), (None, logging::NODE_FILTER));
    assert!(config.listen.addresses.iter().all(|address| address.to_string().contains(&LISTEN_PORT.to_string())));
}

#[test]
fn a_flag_beats_the_environment_beats_the_file() {
    let file = "name = 'file'\nmode = 'provider'\napi = '127.0.0.1:1'\nlisten = ['/ip4/127.0.0.1/tcp/1']\njoin = 'file'";
    let environment = [
        ("ATMO_NAME", "environment"),
        ("ATMO_MODE", "headless"),
        ("ATMO_API", "127.0.0.1:2"),
        ("ATMO_LISTEN", "/ip4/127.0.0.1/tcp/2, /ip4/127.0.0.1/udp/2/quic-v1"),
        ("ATMO_JOIN_CODE", "environment"),
        ("ATMO_LOG", "debug"),
    ];
    let said = flags(|flags| {
        flags.name = Some("flag".to_owned());
        flags.mode = Some("standalone".to_owned());
        flags.api = Some("localhost:3".to_owned());
        flags.listen = vec!["/ip4/127.0.0.1/tcp/3".to_owned()];
        flags.join = Some("flag".to_owned());
    });
    for (config, name, mode, port, listens, log) in [
        (resolve(said, &environment, file).unwrap(), "flag", Mode::Standalone, 3, 1, "debug"),
        (resolve(Flags::default(), &environment, file).unwrap(), "environment", Mode::Headless, 2, 2, "debug"),
        (resolve(Flags::default(), &[], file).unwrap(), "file", Mode::Provider, 1, 1, logging::NODE_FILTER),
    ] {
        assert_eq!((config.name.as_str(), config.mode, config.api.address.port()), (name, mode, port));
        assert_eq!((config.join.as_deref(), config.log.as_str()), (Some(name), log));
        assert_eq!(config.listen.addresses.len(), listens);
        assert!(config.api.explicit && config.listen.explicit);
    }
}

#[test]
fn where_a_node_will_be_reached_is_guessed_from_what_it_listens_on() {
    let own: Vec<IpAddr> = ["192.0.2.7", "2001:db8::7", "127.0.0.1"].into_iter().map(|ip| ip.parse().unwrap()).collect();
    let likely = resolve(Flags::default(), &[], "").unwrap().listen.likely_addresses(&own);
    let expected = [
        "/ip4/192.0.2.7/udp/11452/quic-v1",
        "/ip4/192.0.2.7/tcp/11452",
        "/ip6/2001:db8::7/udp/11452/quic-v1",
        "/ip6/2001:db8::7/tcp/11452",
        "/ip4/127.0.0.1/udp/11452/quic-v1",
        "/ip4/127.0.0.1/tcp/11452",
    ];
    assert_eq!(likely, expected);
    let local = "listen = ['/ip4/127.0.0.1/tcp/7', '/ip4/127.0.0.1/udp/0/quic-v1']";
    assert_eq!(resolve(Flags::default(), &[], local).unwrap().listen.likely_addresses(&own), ["/ip4/127.0.0.1/tcp/7"]);
}

#[test]
fn switches_follow_the_same_order() {
    let off = flags(|flags| flags.no_mdns = true);
    assert!(!resolve(off, &[("ATMO_MDNS", "true")], "mdns = true").unwrap().mdns);
    assert!(resolve(Flags::default(), &[("ATMO_DISCOVER", "1")], "discover = false").unwrap().discover);
    assert!(!resolve(Flags::default(), &[("ATMO_BUILTIN", "false")], "").unwrap().builtin);
    assert!(!resolve(Flags::default(), &[("ATMO_BUILTIN", "")], "builtin = false").unwrap().builtin, "empty counts as not set");
    let error = resolve(Flags::default(), &[("ATMO_MDNS", "perhaps")], "").unwrap_err();
    assert!(error.to_string().contains("ATMO_MDNS") && error.to_string().contains("perhaps"), "{error}");
}

#[test]
fn an_api_that_others_could_reach_needs_keys() {
    let api = |address: &str| resolve(flags(|flags| flags.api = Some(address.to_owned())), &[], "").unwrap().api;
    for address in ["0.0.0.0:11451", "192.168.1.4:80", "[::]:11451"] {
        assert!(api(address).needs_keys(), "{address}");
    }
    for address in ["[::1]:5", "127.0.0.1:5", "localhost:5"] {
        assert!(!api(address).needs_keys(), "{address}");
    }
    assert!(parse_error("api = 'box.lan:1'").contains("line 1"));
    for origin in ["https://a.example/", "a.example", "", "https://"] {
        assert!(parse_error(&format!("api_origins = ['{origin}']")).contains("not the origin of a web page"), "{origin}");
    }
}

#[test]
fn a_wrong_value_names_its_source_and_what_is_allowed() {
    for (said, source, allowed) in [
        (flags(|flags| flags.mode = Some("server".to_owned())), "--mode", "headless"),
        (flags(|flags| flags.api = Some("11451".to_owned())), "--api", "HOST:PORT"),
        (flags(|flags| flags.listen = vec!["tcp:1".to_owned()]), "--listen", "/udp/PORT/quic-v1"),
        (flags(|flags| flags.listen = vec!["/ip4/1.1.1.1/udp/3".to_owned()]), "--listen", "/udp/PORT/quic-v1"),
        (flags(|flags| flags.name = Some("a/b".to_owned())), "--name", "without `/`"),
    ] {
        let text = resolve(said, &[], "").unwrap_err().to_string();
        assert!(text.starts_with(&format!("{source}: ")) && text.contains(allowed), "{text}");
    }
    let text = resolve(Flags::default(), &[("ATMO_LOG", "atmo=loud")], "").unwrap_err().to_string();
    assert!(text.starts_with("ATMO_LOG: ") && text.contains("atmo=debug"), "{text}");
}

#[test]
fn a_wrong_file_names_line_key_and_what_is_allowed() {
    for (text, expected) in [
        ("name = 'x'\nmod = 'provider'", ["line 2", "mod", "mode"]),
        ("\nmode = 'server'", ["line 2", "mode = 'server'", "participant"]),
        ("mdns = 'yes'", ["line 1", "mdns", "boolean"]),
        ("[limits]\nbody_bytes = -1", ["line 2", "body_bytes", "u64"]),
        ("listen = ['nowhere']", ["line 1", "listen", "/tcp/PORT"]),
        ("[[backends]]\nkind = 'gpt'", ["line 2", "kind", "llama-cpp"]),
        ("[[backends]]\nkind = 'openai'", ["line 1", "backends", "ending in /v1"]),
        ("[[backends]]\nkind = 'ollama'\nurl = 'ollama:1'", ["line 1", "backends", "http://"]),
        ("[[backends]]\nkind = 'ollama'\npath = 'x'", ["line 1", "`path`", "ollama"]),
        ("[[backends]]\nkind = 'llama-cpp'\nurl = 'http://x'", ["line 1", "`url`", "llama-cpp"]),
        ("[[backends]]\nkind = 'ollama'\nenergy = { price_per_kwh = 1 }", ["line 3", "`watts`", "`joules_per_1k_tokens`"]),
        ("[[backends]]\nkind = 'ollama'\nenergy = { watts = 1e9, price_per_kwh = 1 }", ["line 3", "`energy`", "10000000 watts"]),
    ] {
        let error = parse_error(text);
        assert!(expected.iter().all(|part| error.contains(part)), "{text:?} gives {error}");
    }
}

#[test]
fn backends_need_little() {
    let file = "[[backends]]\nkind = 'openai'\nurl = 'http://127.0.0.1:8000/v1/'\napi_key_file = 'key'\nmodels = ['m']\n\
                [[backends]]\nkind = 'ollama'\n[[backends]]\nkind = 'llamafarm'\nname = 'farm'\n[[backends]]\nkind = 'llama-cpp'\npath = '/m.gguf'";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    std::fs::write(&path, file).unwrap();
    let config = Config::load(dir.path().to_owned(), &Flags::default(), &|_| None).unwrap();
    let url = "http://127.0.0.1:8000/v1".to_owned();
    let key = Some(dir.path().join("key"));
    assert_eq!(config.backends[0].name, url);
    assert_eq!(config.backends[0].kind, BackendKind::OpenAi { url, api_key_file: key });
    assert_eq!(config.backends[1].name, "ollama");
    assert_eq!((config.backends[2].name.as_str(), &config.backends[2].kind), ("farm", &BackendKind::LlamaFarm { url: None }));
    assert_eq!(config.backends[3].kind, BackendKind::LlamaCpp { path: Some("/m.gguf".into()) });
    std::fs::write(&path, "[[backends]]\nkind = 'ollama'\n[[backends]]\nkind = 'ollama'").unwrap();
    let error = Config::load(dir.path().to_owned(), &Flags::default(), &|_| None).unwrap_err();
    assert!(error.to_string().contains("atmo.toml") && error.to_string().contains("`ollama`"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_named_file_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let load = |flags: &Flags, environment: Lookup<'_>| Config::load(dir.path().to_owned(), flags, environment);
    assert!(load(&Flags::default(), &|_| None).is_ok());
    let missing = dir.path().join("no.toml");
    let error = load(&flags(|flags| flags.config = Some(missing.clone())), &|_| None).unwrap_err();
    assert!(error.to_string().contains("no.toml"), "{error}");
    assert!(load(&Flags::default(), &|variable| (variable == "ATMO_CONFIG").then(|| missing.display().to_string())).is_err());
}

#[test]
fn the_data_folder_is_named_or_the_platforms() {
    let environment = |variable: &str| (variable == "ATMO_DATA_DIR").then(|| "/from/environment".to_owned());
    assert_eq!(data_dir(Some(Path::new("/flag")), &environment).unwrap(), Path::new("/flag"));
    assert_eq!(data_dir(None, &environment).unwrap(), Path::new("/from/environment"));
    assert!(data_dir(None, &|_| None).is_ok_and(|dir| dir.ends_with("atmosphere")));
}

/// The example is what the defaults are, and every line of it that is a value can be uncommented.
#[test]
fn the_example_shows_the_defaults() {
    let example = include_str!("../../../deploy/atmo.example.toml");
    let from_example = resolve(Flags::default(), &[], example).unwrap();
    let mut defaults = resolve(Flags::default(), &[], "").unwrap();
    // Written out in the example, which makes them explicit.
    defaults.api.explicit = true;
    defaults.listen.explicit = true;
    assert_eq!(from_example, defaults);
    let everything: String = example.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    let file = ConfigFile::parse(&everything).unwrap();
    assert_eq!(file.backends.len(), 5, "one of each kind, and one that its owner describes");
    assert!(file.backends.iter().any(|backend| !backend.about.is_empty()));
    assert!(file.name.is_some() && file.join.is_some() && !file.labels.is_empty());
}
