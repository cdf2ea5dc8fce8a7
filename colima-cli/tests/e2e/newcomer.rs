//! Somebody who knows nothing but the README of Colima: what he types, and all that he is told.
//!
//! The transcript is a snapshot, so whatever is said otherwise from now on is seen by whoever changes it.

use std::{fs, path::Path};

use super::{
    command::{Finished, Run},
    world::{BOOT, IMAGE, OTHER_PROFILE, World},
};

/// A configuration as such people have it, with a key that has no effect here.
const CONFIG: &str = "# from my old machine
cpu: 1
memory: 1
disk: 5
vmType: vz
hostname: workbench
env:
  http_proxy: http://127.0.0.1:3128
provision:
  - mode: system
    script: |
      mkdir -p /opt/tools
      echo provisioned > /opt/tools/note
";

/// Why there is nothing to compare with, where that is so.
pub(crate) fn cannot() -> Option<&'static str> {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/snapshots");
    let readable = fs::read_dir(snapshots).is_ok();
    (!readable).then_some("this user cannot read the snapshot in the checkout")
}

struct Transcript<'w> {
    world: &'w World,
    text: String,
}

impl Transcript<'_> {
    /// Types it, and writes down what is said.
    fn colima(&mut self, line: &str) {
        let words = line.split(' ');
        let run = self.world.colima([]).args(words).limit(BOOT);
        self.note(&format!("colima {line}"), run);
    }

    fn docker(&mut self, line: &str) {
        let run = self.world.docker([]).args(line.split(' '));
        self.note(&format!("docker {line}"), run);
    }

    fn note(&mut self, line: &str, run: Run) {
        let finished = run.finish();
        self.text.push_str(&format!("$ {line}\n"));
        self.text.push_str(&self.normal(&finished));
        if let Some(code) = finished.status.code().filter(|code| *code != 0) {
            self.text.push_str(&format!("[exit {code}]\n"));
        }
        self.text.push('\n');
    }

    /// Without what is another's on another host: places, times, whether the machine is emulated.
    fn normal(&self, finished: &Finished) -> String {
        let home = self.world.home.display().to_string();
        let said = [&finished.stderr, &finished.stdout];
        let said = said.map(|bytes| String::from_utf8_lossy(bytes).replace(&home, "[home]"));
        said.concat()
            .lines()
            .filter(|line| !line.contains("no hardware virtualization here"))
            .map(|line| format!("{}\n", without_times(line.trim_end())))
            .collect()
    }
}

/// `  0.3s` becomes `  [time]`, and `12.3 s` as well.
fn without_times(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest[start..]
            .find(|c| !number(c))
            .map_or(rest.len(), |end| start + end);
        let (digits, after) = (&rest[start..end], &rest[end..]);
        let unit = ["s", " s"].into_iter().find(|unit| {
            let after = after.strip_prefix(unit);
            after.is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
        });
        text.push_str(&rest[..start]);
        match unit.filter(|_| digits.contains('.')) {
            Some(unit) => {
                text.push_str("[time]");
                rest = &after[unit.len()..];
            }
            None => {
                text.push_str(digits);
                rest = after;
            }
        }
    }
    text + rest
}

/// The size of a suspended machine is another one each time.
fn without_sizes(text: &str) -> String {
    let line = |line: &str| match line.split_once(" MiB on disk") {
        Some((before, after)) => {
            let before = before.trim_end_matches(|c: char| c.is_ascii_digit());
            format!("{before}[size] on disk{after}\n")
        }
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

pub(crate) fn reads_the_readme_of_colima(world: &World) {
    world.clear();
    let mut transcript = Transcript {
        world,
        text: String::new(),
    };
    let it = &mut transcript;
    it.colima("status");
    it.colima("start --cpu 1 --memory 1 --disk 5");
    world.import_busybox();
    it.docker(&format!("run --rm {IMAGE} echo hello"));
    it.colima("ssh -- cat /etc/hostname");

    let directory = world.home.join(OTHER_PROFILE);
    fs::create_dir_all(&directory).expect("the home of the tests can be written");
    fs::write(directory.join("colima.yaml"), CONFIG).expect("a new file");
    it.colima("start --profile small");
    it.colima("ssh --profile small -- cat /etc/hostname /opt/tools/note");
    it.colima("ssh --profile small -- printenv http_proxy");
    it.docker("context show");
    it.colima("list");
    it.colima("stop small");
    it.docker("context show");
    it.colima("delete small --force");
    it.colima("stop");
    it.colima("start");
    it.docker("image ls --format {{.Repository}}:{{.Tag}}");
    it.colima("delete --force --data");
    it.colima("list");
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("newcomer", without_sizes(&transcript.text));
    });
}
