//! A start or stop under way, followed by any number of clients.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    command_error::CommandError,
    control::{Reply, Stage},
};

/// What followers have to be told, in order.
#[derive(Clone, Debug, Default)]
struct Log {
    stages: Vec<Stage>,
    /// The newest detail of the newest stage; older ones are of no interest to anyone.
    detail: Option<String>,
    outcome: Option<Result<Reply, CommandError>>,
}

/// Who waits for the work.
#[derive(Clone, Copy, Debug)]
struct Audience {
    followers: usize,
    abandoned: bool,
}

/// Work that clients follow from its beginning, whenever they come.
#[derive(Debug)]
pub(super) struct Job {
    log: watch::Sender<Log>,
    audience: watch::Sender<Audience>,
}

impl Job {
    pub(super) fn new() -> Self {
        Self {
            log: watch::Sender::new(Log::default()),
            audience: watch::Sender::new(Audience {
                followers: 0,
                abandoned: false,
            }),
        }
    }

    pub(super) fn tell(&self, stage: Stage) {
        self.log.send_modify(|log| match stage {
            Stage::Detail { text } => log.detail = Some(text),
            Stage::Begin { .. } | Stage::Note { .. } => {
                log.detail = None;
                log.stages.push(stage);
            }
        });
    }

    pub(super) fn finish(&self, outcome: Result<Reply, CommandError>) {
        self.log.send_modify(|log| log.outcome = Some(outcome));
    }

    /// Gives the work up, whoever still follows it.
    pub(super) fn abandon(&self) {
        self.audience
            .send_modify(|audience| audience.abandoned = true);
    }

    /// Resolves when nobody wants the work's result any more.
    pub(super) async fn is_abandoned(&self) {
        // The sender lives in `self`, so the wait ends only with the value.
        let _ = self
            .audience
            .subscribe()
            .wait_for(|audience| audience.abandoned)
            .await;
    }

    pub(super) fn was_abandoned(&self) -> bool {
        self.audience.borrow().abandoned
    }

    /// Resolves with the outcome.
    pub(super) async fn finished(&self) -> Option<Result<Reply, CommandError>> {
        let mut log = self.log.subscribe();
        let done = log.wait_for(|log| log.outcome.is_some()).await;
        done.ok().and_then(|log| log.outcome.clone())
    }

    /// Joins the followers, unless the work is given up already. The last one to drop its [`Follower`]
    /// before the end abandons the work.
    pub(super) fn follow(self: &Arc<Self>) -> Option<Follower> {
        let joined = self.audience.send_if_modified(|audience| {
            if !audience.abandoned {
                audience.followers += 1;
            }
            !audience.abandoned
        });
        joined.then(|| Follower {
            log: self.log.subscribe(),
            job: self.clone(),
            told: 0,
            detail: None,
        })
    }
}

/// One client's place in the log of a [`Job`].
#[derive(Debug)]
pub(super) struct Follower {
    job: Arc<Job>,
    log: watch::Receiver<Log>,
    told: usize,
    detail: Option<String>,
}

impl Follower {
    /// Gives the place up and returns the work, which is abandoned if this was the last follower.
    pub(super) fn leave(self) -> Arc<Job> {
        self.job.clone()
    }

    /// What this client has not been told yet, and whether it is the last word.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is marked as told before it is returned.
    pub(super) async fn next(&mut self) -> (Vec<Reply>, Progress) {
        loop {
            let log = self.log.borrow_and_update().clone();
            let mut news: Vec<Reply> = log
                .stages
                .iter()
                .skip(self.told)
                .cloned()
                .map(Reply::Stage)
                .collect();
            self.told = log.stages.len();
            if log.detail != self.detail {
                self.detail.clone_from(&log.detail);
                news.extend(log.detail.map(|text| Reply::Stage(Stage::Detail { text })));
            }
            if let Some(outcome) = log.outcome {
                news.push(outcome.unwrap_or_else(Reply::Failed));
                return (news, Progress::Finished);
            }
            if !news.is_empty() {
                return (news, Progress::UnderWay);
            }
            // The sender lives in the job, which this follower keeps alive.
            let _ = self.log.changed().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let under_way = self.log.borrow().outcome.is_none();
        self.job.audience.send_modify(|audience| {
            audience.followers -= 1;
            audience.abandoned |= audience.followers == 0 && under_way;
        });
    }
}

/// Whether more will follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    UnderWay,
    Finished,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(name: &str) -> Stage {
        Stage::Begin {
            name: name.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_late_follower_hears_everything_once() {
        let job = Arc::new(Job::new());
        let mut early = job.follow().unwrap();
        job.tell(begin("one"));
        assert_eq!(early.next().await.0.len(), 1);
        job.tell(Stage::Detail { text: "1 %".into() });
        job.tell(Stage::Detail { text: "2 %".into() });
        job.tell(begin("two"));
        job.finish(Ok(Reply::Retired));
        let (news, progress) = early.next().await;
        assert_eq!((news.len(), progress), (2, Progress::Finished));
        let (news, progress) = job.follow().unwrap().next().await;
        assert_eq!((news.len(), progress), (3, Progress::Finished));
    }

    #[tokio::test]
    async fn the_last_follower_takes_the_work_with_it() {
        let job = Arc::new(Job::new());
        let (first, second) = (job.follow().unwrap(), job.follow().unwrap());
        drop(first);
        assert!(!job.was_abandoned());
        drop(second);
        job.is_abandoned().await;
        assert!(job.follow().is_none());
    }

    #[tokio::test]
    async fn finished_work_cannot_be_abandoned() {
        let job = Arc::new(Job::new());
        let only = job.follow().unwrap();
        job.finish(Ok(Reply::Retired));
        drop(only);
        assert!(!job.was_abandoned());
        assert!(matches!(job.finished().await, Some(Ok(Reply::Retired))));
    }
}
