//! `colima update`: newer packages of the container runtime, in the running machine.

use super::{Context, print, say, ssh, status};
use crate::{
    args::UpdateArgs,
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
    instance::Probe,
    output::escaped,
};

/// Packages of the runtime that are installed, one `NAME VERSION` per line.
const INSTALLED: &str = "\
dpkg-query --show --showformat '${db:Status-Abbrev} ${Package} ${Version}\\n' \
    docker.io docker-cli docker-buildx docker-compose containerd runc 2>/dev/null |
    sed -n 's/^ii *//p'
";

/// Fetches what is newest; says nothing on standard output.
const REFRESH: &str = "sudo apt-get --quiet --quiet update >&2";

/// Installs what is newer of the packages named. Containers that ran before run again afterwards: a new
/// daemon stops them, and starts by itself only those that have a restart policy.
const INSTALL: &str = r#"
set -e
running=$(docker ps --quiet --no-trunc 2>/dev/null || true)
sudo env DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet --yes --only-upgrade \
    -o Dpkg::Options::=--force-confold install "$@" >&2
case $(systemctl show --property LoadState --value docker.service) in
masked) sudo ctr version >/dev/null ;;
*) docker version >/dev/null ;;
esac
for container in $running; do
    docker start "$container" >/dev/null || echo "note: the container $container did not start again" >&2
done
"#;

pub(super) async fn run(context: &Context<'_>, _: &UpdateArgs) -> Result<ExitCode, CommandError> {
    let mut progress = context.progress();
    let before = versions(context).await?;
    if before.is_empty() {
        return Err(CommandError::new(
            ErrorKind::Failure,
            "there is no container runtime in the machine that could be updated",
        ));
    }
    // What is shown is not worth failing for, here and below.
    let _ = progress.stage("asking for newer packages");
    run_in_guest(
        context,
        "the list of packages could not be fetched",
        &["sh", "-c", REFRESH],
    )
    .await
    .inspect_err(|_| drop(progress.failed()))?;
    let _ = progress.stage("installing");
    let mut install = vec!["sh", "-c", INSTALL, "update"];
    install.extend(before.iter().map(|(name, _)| name.as_str()));
    run_in_guest(context, "the packages could not be installed", &install)
        .await
        .inspect_err(|_| drop(progress.failed()))?;
    let after = versions(context).await?;
    let changes = changes(&before, &after);
    if changes.is_empty() {
        let _ = progress.done("nothing is newer: looked");
    } else {
        print(changes)?;
        let _ = progress.done("updated");
    }
    is_well(context).await
}

/// The machine has to work afterwards; `status` says what does not.
async fn is_well(context: &Context<'_>) -> Result<ExitCode, CommandError> {
    match context.probe().await? {
        Probe::Running { problems, .. } => {
            for problem in problems {
                let problem = problem.for_profile(&context.profile);
                say(&escaped(&format!("note: {problem}")));
            }
            Ok(ExitCode::Ok)
        }
        other => Err(status::not_usable(context, other)),
    }
}

async fn versions(context: &Context<'_>) -> Result<Vec<(String, String)>, CommandError> {
    let what = "the installed packages could not be listed";
    let text = run_in_guest(context, what, &["sh", "-c", INSTALLED]).await?;
    Ok(parse_versions(&text))
}

/// What a command in the guest prints; what it complains about where it fails.
async fn run_in_guest(
    context: &Context<'_>,
    what: &str,
    words: &[&str],
) -> Result<String, CommandError> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let output = ssh::output(context, &words).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: Vec<&str> = said.lines().collect();
    let last = &said[said.len().saturating_sub(10)..];
    let failure = CommandError::new(ErrorKind::Failure, what)
        .hint("nothing is lost, and it can be repeated: colima update");
    Err(last.iter().fold(failure, |failure, line| {
        failure.because(format!("guest: {line}"))
    }))
}

fn parse_versions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    lines
        .map(|(name, version)| (name.to_owned(), version.trim().to_owned()))
        .collect()
}

/// One line per package that has another version now.
fn changes(before: &[(String, String)], after: &[(String, String)]) -> String {
    let changed = before.iter().filter_map(|(name, old)| {
        let (_, new) = after.iter().find(|(other, _)| other == name)?;
        (new != old).then(|| format!("{name}: {old} -> {new}\n"))
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told() {
        let before = parse_versions("docker.io 26.1.5+dfsg1-9\ncontainerd 1.7.24~ds1-6\n");
        let after = parse_versions("containerd 1.7.24~ds1-6\n  docker.io 26.1.5+dfsg1-10\n");
        assert_eq!(changes(&before, &before), "");
        assert_eq!(
            changes(&before, &after),
            "docker.io: 26.1.5+dfsg1-9 -> 26.1.5+dfsg1-10\n"
        );
    }
}
