//! What a command line means.

use clap::{Parser, error::ErrorKind};
use colima::{
    args::{Cli, DaemonVerb, ImageVerb, LogSource, StartArgs, Verb},
    environment::Environment,
};
use colima_core::{
    Bytes,
    config::{MountEntry, Mounts, Settings},
};

fn parse(line: &str) -> Cli {
    let words = std::iter::once("colima").chain(line.split_whitespace());
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> ErrorKind {
    let words = std::iter::once("colima").chain(line.split_whitespace());
    Cli::try_parse_from(words).expect_err(line).kind()
}

fn start(line: &str) -> StartArgs {
    match parse(line).verb {
        Verb::Start(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let lookup = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name)?;
        Some(found.1.into())
    };
    Environment::from_variables(lookup, "", 1000, 1000)
}

#[test]
fn start_flags_are_settings() {
    let settings = start(
        "start --cpus 4 -m 2.5 --disk 60GiB --root-disk 30 -r none --activate=false --env A=1 --env B=x=y --hostname box -n 1.1.1.1 --dns fd00::1 --dns-host db=10.0.0.1 --registry-mirror http://m -s --ssh-config",
    )
    .settings();
    let expected = Settings {
        cpus: Some(4),
        memory: Some(Bytes::mib(2560)),
        disk: Some(Bytes::gib(60)),
        root_disk: Some(Bytes::gib(30)),
        runtime: Some("none".to_owned()),
        auto_activate: Some(false),
        hostname: Some("box".to_owned()),
        env: [("A", "1"), ("B", "x=y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        dns: Some(vec!["1.1.1.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
        dns_hosts: Some([("db".to_owned(), "10.0.0.1".to_owned())].into()),
        registry_mirrors: Some(vec!["http://m".to_owned()]),
        forward_agent: Some(true),
        ssh_config: Some(true),
        ..Settings::default()
    };
    assert_eq!(settings, expected);
    assert_eq!(start("start").settings(), Settings::default());
    assert_eq!(start("start --cpu 3").settings().cpus, Some(3));
    assert_eq!(
        start("start --activate").settings().auto_activate,
        Some(true)
    );
}

#[test]
fn colimas_other_flags_get_a_line_each() {
    let args = start(
        "start work -k --kubernetes-version v1 -t vz --mount-type virtiofs --vz-rosetta=false --arch host",
    );
    let lines: Vec<String> = args
        .without_effect()
        .iter()
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    assert_eq!(args.profile.name.as_deref(), Some("work"));
}

#[test]
fn mounts_are_what_was_typed() {
    let mounts = |line: &str| start(line).settings().mounts;
    assert_eq!(mounts("start"), None);
    assert_eq!(mounts("start --mount none"), Some(Mounts::None));
    assert_eq!(mounts("start -V /a --mount none"), Some(Mounts::None));
    let entry = |location: &str, writable| MountEntry {
        location: location.to_owned(),
        mount_point: None,
        writable,
    };
    assert_eq!(
        mounts("start -V /a:w --mount ~/b"),
        Some(Mounts::These(vec![entry("/a", true), entry("~/b", false)]))
    );
}

#[test]
fn whether_flags_are_written_back() {
    let unset = environment(&[]);
    let off = environment(&[("COLIMA_SAVE_CONFIG", "0")]);
    assert!(start("start").saves_config(&unset));
    assert!(!start("start --save-config=false").saves_config(&unset));
    assert!(!start("start").saves_config(&off));
    assert!(start("start --save-config").saves_config(&off));
}

#[test]
fn the_profile_is_the_flag_else_the_argument_else_the_variable() {
    let set = environment(&[("COLIMA_PROFILE", "env")]);
    let profile = |line: &str, environment: &Environment| {
        parse(line).profile(environment).unwrap().to_string()
    };
    assert_eq!(profile("start -p flag argument", &set), "flag");
    assert_eq!(profile("stop argument", &set), "argument");
    assert_eq!(profile("status", &set), "env");
    assert_eq!(profile("status", &environment(&[])), "default");
    assert_eq!(profile("ssh -p flag -- stop argument", &set), "flag");
    assert_eq!(profile("delete colima-work", &set), "work");
    assert!(parse("start ..").profile(&set).is_err());
    assert!(parse("list work").names_profile());
    assert!(!parse("list").names_profile());
}

#[test]
fn aliases_are_colimas() {
    assert!(matches!(parse("ls -j").verb, Verb::List(args) if args.json));
    for verb in ["ssh", "exec", "x"] {
        let Verb::Ssh(args) = parse(&format!("{verb} -- docker ps -a --no-trunc")).verb else {
            panic!("{verb}");
        };
        assert_eq!(args.command, ["docker", "ps", "-a", "--no-trunc"]);
    }
    assert!(matches!(parse("status -e -j").verb, Verb::Status(args) if args.extended && args.json));
    assert!(matches!(parse("delete -f -d").verb, Verb::Delete(args) if args.force && args.data));
    assert!(matches!(parse("delete -y").verb, Verb::Delete(args) if args.force && !args.data));
}

#[test]
fn hidden_and_smaller_verbs() {
    assert!(
        matches!(parse("daemon run -p w").verb, Verb::Daemon(args) if args.verb == DaemonVerb::Run)
    );
    assert!(matches!(parse("proxy /x/y").verb, Verb::Proxy(args) if args.socket.ends_with("y")));
    assert!(
        matches!(parse("image rm x").verb, Verb::Image(args) if args.verb == ImageVerb::Rm { id: "x".to_owned() })
    );
    let Verb::Logs(logs) = parse("logs -f -n 5 --serial").verb else {
        panic!();
    };
    assert_eq!(
        (logs.follow, logs.lines, logs.source()),
        (true, 5, LogSource::Serial)
    );
    // Colima's, accepted wherever a script has them.
    for line in ["-v status", "status --very-verbose"] {
        assert!(matches!(parse(line).verb, Verb::Status(_)));
    }
}

#[test]
fn completion_scripts_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let Verb::Completion(args) = parse(&format!("completion {shell}")).verb else {
            panic!();
        };
        let script = args.script();
        assert!(script.contains("root-disk"), "{shell}");
        let names = script.matches("colima list --names").count();
        assert_eq!(names > 0, shell != "powershell", "{shell}");
        // Behind the flag, and as the argument of each verb that takes a profile.
        let zsh = script.matches(":_colima_profiles'").count();
        assert!(zsh == 0 || (shell == "zsh" && zsh > 40), "{shell}: {zsh}");
    }
}

#[test]
fn what_is_refused() {
    for (line, kind) in [
        ("start --memory lots", ErrorKind::ValueValidation),
        ("start --env NOVALUE", ErrorKind::ValueValidation),
        ("start --runtime podman", ErrorKind::InvalidValue),
        ("start --cpus -1", ErrorKind::UnknownArgument),
        ("start --dns nowhere", ErrorKind::ValueValidation),
        ("start --dns-host db", ErrorKind::ValueValidation),
        ("status --progress loud", ErrorKind::InvalidValue),
        ("start --bananas", ErrorKind::UnknownArgument),
        ("logs --serial --daemon", ErrorKind::ArgumentConflict),
        ("strat", ErrorKind::InvalidSubcommand),
        ("ssh --docker", ErrorKind::UnknownArgument),
    ] {
        assert_eq!(refused(line), kind, "{line}");
    }
}
