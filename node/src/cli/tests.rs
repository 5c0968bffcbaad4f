use super::*;

fn parse(line: &str) -> CommandLine {
    CommandLine::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn the_definition_is_sound() {
    CommandLine::command().debug_assert();
}

#[test]
fn common_options_stand_before_or_after_the_command() {
    for line in [
        "atmo --json --data-dir /d status",
        "atmo status --json --data-dir /d",
        "atmo --json status --data-dir /d",
        "atmo --data-dir=/d status --json",
    ] {
        let CommandLine { common, command } = parse(line);
        assert!(common.json && matches!(command, Command::Status), "{line}");
        assert_eq!(common.data_dir, Some("/d".into()), "{line}");
    }
    assert!(parse("atmo mesh create home --json").common.json);
    assert!(parse("atmo mesh --json create").common.json);
    assert!(!parse("atmo status").common.json);
}

#[test]
fn up_takes_everything_that_a_node_can_be_told() {
    let line = "atmo up --name n --mode provider --api 127.0.0.1:1 --listen /a --listen /b --join c --config f --no-mdns --no-discover --no-builtin";
    let Command::Up(arguments) = parse(line).command else { panic!("not up") };
    let expected = Flags {
        name: Some("n".to_owned()),
        mode: Some("provider".to_owned()),
        api: Some("127.0.0.1:1".to_owned()),
        listen: vec!["/a".to_owned(), "/b".to_owned()],
        join: Some("c".to_owned()),
        config: Some("f".into()),
        no_mdns: true,
        no_discover: true,
        no_builtin: true,
    };
    assert_eq!(Flags::from(*arguments), expected);
    let Command::Up(arguments) = parse("atmo up").command else { panic!("not up") };
    assert_eq!(Flags::from(*arguments), Flags::default());
}

#[test]
fn an_invitation_has_defaults() {
    let Command::Invite(InviteArguments { ttl, uses, roles, .. }) = parse("atmo invite").command else { panic!("not invite") };
    assert_eq!((ttl.as_secs(), uses, roles), (86_400, 1, vec!["consume".to_owned(), "provide".to_owned()]));
    let Command::Invite(arguments) = parse("atmo invite --ttl 30m --uses 5 --roles consume,issue").command else {
        panic!("not invite")
    };
    assert_eq!((arguments.ttl.as_secs(), arguments.uses, arguments.roles.len()), (1_800, 5, 2));
}

#[test]
fn an_intent_is_text_or_standard_input() {
    let Command::Intent(arguments) = parse("atmo intent - --explain --model m --local-only").command else {
        panic!("not intent")
    };
    assert_eq!((arguments.text.as_str(), arguments.model.as_deref()), ("-", Some("m")));
    assert!(arguments.explain && arguments.constraints.local_only);
}

#[test]
fn what_is_asked_wrongly_is_usage() {
    for line in [
        "atmo",
        "atmo fly",
        "atmo join",
        "atmo intent",
        "atmo invite --ttl soon",
        "atmo invite --uses 0",
        "atmo mesh",
        "atmo status now",
    ] {
        let error = CommandLine::try_parse_from(line.split_whitespace()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn every_command_explains_itself() {
    fn check(command: &clap::Command) {
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some_and(|about| !about.to_string().is_empty()), "{}", sub.get_name());
            let examples = sub.get_after_help().is_some() || sub.has_subcommands() || sub.is_hide_set();
            assert!(examples, "{} has no example", sub.get_name());
            assert!(!sub.clone().render_help().to_string().is_empty());
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{} of {}", argument.get_id(), sub.get_name());
            }
            check(sub);
        }
    }
    check(&CommandLine::command());
    assert!(CommandLine::command().render_help().to_string().contains("atmo join CODE"));
}
