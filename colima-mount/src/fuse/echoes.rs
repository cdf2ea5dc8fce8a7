//! What this client does itself, and will be told of as if it were the host's doing.
//!
//! An operation in a watched directory brings one event back, which may come before its answer. It is
//! waited for by name and kind; what has not come when everything was told that had happened by the end of
//! the operation does not come any more. For a name each event is the echo of one operation; writes and
//! attributes of a file come in any number, and count as echoes all the while.

use std::collections::HashMap;

use bytes::Bytes;

use crate::sftp::{Happening, Told};

/// A directory, a name in it, and what is done to it; an inode and no name for what is done to a file.
pub(crate) type Doing = (u64, Bytes, Happening);

#[derive(Debug)]
struct Own {
    operation: u64,
    /// The last question when it was over.
    over: Option<u64>,
    /// Its echo came first.
    heard: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Echoes {
    asked: u64,
    operations: u64,
    own: HashMap<Doing, Vec<Own>>,
}

impl Echoes {
    /// An operation begins. Gives its number.
    pub(crate) fn begin(&mut self, doings: impl IntoIterator<Item = Doing>) -> u64 {
        self.operations += 1;
        for doing in doings {
            let own = Own {
                operation: self.operations,
                over: None,
                heard: false,
            };
            self.own.entry(doing).or_default().push(own);
        }
        self.operations
    }

    /// It is over: done, or not.
    pub(crate) fn over(&mut self, operation: u64, doings: &[Doing], done: bool) {
        for doing in doings {
            let Some(own) = self.own.get_mut(doing) else {
                continue;
            };
            own.retain(|own| own.operation != operation || !own.heard);
            if done {
                let mine = own.iter_mut().filter(|own| own.operation == operation);
                mine.for_each(|own| own.over = Some(self.asked));
            } else {
                own.retain(|own| own.operation != operation);
            }
            if own.is_empty() {
                self.own.remove(doing);
            }
        }
    }

    /// Whether an event is the echo of something; each is so once.
    pub(crate) fn hear(&mut self, doing: &Doing) -> bool {
        let Some(own) = self.own.get_mut(doing) else {
            return false;
        };
        let Some(first) = own.iter().position(|own| !own.heard) else {
            return false;
        };
        if own[first].over.is_none() {
            own[first].heard = true;
        } else {
            own.remove(first);
        }
        if own.is_empty() {
            self.own.remove(doing);
        }
        true
    }

    /// Something was done whose echoes may come.
    pub(crate) fn note(&mut self, doing: Doing) {
        let over = Some(self.asked);
        let own = self.own.entry(doing).or_default();
        // What has no number of its own was over at once.
        own.retain(|own| own.operation != 0);
        own.push(Own {
            operation: 0,
            over,
            heard: false,
        });
    }

    /// Whether something is being done, or was so that its echoes may come.
    pub(crate) fn may_hear(&self, doing: &Doing) -> bool {
        self.own.contains_key(doing)
    }

    /// Events are asked for.
    pub(crate) fn ask(&mut self) {
        self.asked += 1;
    }

    /// Everything of the answer was heard.
    pub(crate) fn heard(&mut self, told: Told) {
        let asked = self.asked;
        match told {
            Told::Part => {}
            Told::Missed => self.own.clear(),
            Told::All => self.own.retain(|_, own| {
                own.retain(|own| own.over.is_none_or(|over| over >= asked));
                !own.is_empty()
            }),
        }
    }

    /// Nothing of a directory is told any more.
    pub(crate) fn lose(&mut self, directory: u64) {
        self.own.retain(|(parent, _, _), _| *parent != directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doing() -> Doing {
        (1, "a".into(), Happening::Created)
    }

    #[test]
    fn an_echo_is_heard_once_before_or_after_the_answer() {
        let mut echoes = Echoes::default();
        assert!(!echoes.hear(&doing()));
        let operation = echoes.begin([doing()]);
        assert!(echoes.hear(&doing()));
        echoes.over(operation, &[doing()], true);
        assert!(!echoes.hear(&doing()));
        let operation = echoes.begin([doing()]);
        echoes.over(operation, &[doing()], true);
        assert!(echoes.hear(&doing()));
        assert!(!echoes.hear(&doing()));
    }

    #[test]
    fn echoes_of_one_file_come_in_any_number_until_all_is_told() {
        let doing: Doing = (2, Bytes::new(), Happening::Modified);
        let mut echoes = Echoes::default();
        echoes.ask();
        echoes.note(doing.clone());
        echoes.note(doing.clone());
        assert!(echoes.may_hear(&doing) && echoes.may_hear(&doing));
        echoes.heard(Told::All);
        assert!(echoes.may_hear(&doing));
        echoes.ask();
        echoes.heard(Told::All);
        assert!(!echoes.may_hear(&doing));
    }

    #[test]
    fn what_fails_and_what_never_comes_is_not_waited_for() {
        let mut echoes = Echoes::default();
        let operation = echoes.begin([doing()]);
        echoes.over(operation, &[doing()], false);
        assert!(!echoes.hear(&doing()));
        echoes.ask();
        let operation = echoes.begin([doing()]);
        echoes.over(operation, &[doing()], true);
        // It may have happened after these events were read.
        echoes.heard(Told::All);
        echoes.ask();
        echoes.heard(Told::Part);
        assert_eq!(echoes.own.len(), 1);
        echoes.ask();
        echoes.heard(Told::All);
        assert!(!echoes.hear(&doing()));
    }
}
