//! Runs cases one after the other; one that fails does not keep the next from running.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use super::world::World;

/// The run, and its tally in the form of Rust's own test programs.
pub(crate) struct Suite {
    world: World,
    /// Run only cases that contain one of these; all when empty.
    wanted: Vec<String>,
    passed: usize,
    failed: Vec<String>,
    skipped: usize,
    began: Instant,
}

impl Suite {
    pub(crate) fn new(world: World) -> Self {
        Self {
            world,
            wanted: std::env::args()
                .skip(1)
                .filter(|word| !word.starts_with('-'))
                .collect(),
            passed: 0,
            failed: Vec::new(),
            skipped: 0,
            began: Instant::now(),
        }
    }

    /// Runs one case.
    pub(crate) fn case(&mut self, name: &str, case: impl FnOnce(&World)) {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|word| name.contains(word)) {
            return;
        }
        println!(
            "test {name} begins after {:.0} s",
            self.began.elapsed().as_secs_f64()
        );
        let began = Instant::now();
        // A case that panics leaves nothing but the machine behind, and each case looks after that first.
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&self.world)));
        let elapsed = began.elapsed().as_secs_f64();
        if outcome.is_ok() {
            println!("test {name} ... ok ({elapsed:.1} s)");
            self.passed += 1;
        } else {
            println!("test {name} ... FAILED ({elapsed:.1} s)");
            self.failed.push(name.to_owned());
        }
    }

    /// Tells that a case cannot run here, and why.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        println!("test {name} ... ignored, {reason}");
        self.skipped += 1;
    }

    /// What the cases are given.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// The closing lines.
    pub(crate) fn close(self) -> ExitCode {
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!(
            "test result: {}. {} passed; {} failed; {} ignored; finished in {:.0} s",
            if self.failed.is_empty() {
                "ok"
            } else {
                "FAILED"
            },
            self.passed,
            self.failed.len(),
            self.skipped,
            self.began.elapsed().as_secs_f64()
        );
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
