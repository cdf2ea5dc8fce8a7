//! What the host changes reaches the kernel.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use bytes::Bytes;

use super::{
    inodes::{Heard, Inode, Inodes, Notice, Trust, Watch},
    replay::{Place, Replay, Replays, Touch, Who},
    volume::Volume,
};
use crate::sftp::{
    Change, ChangeSet, Child, Errno, Event, EventSet, Field as _, FileId, FileKind, Happening,
    Metadata, Reply, Request, Told, Version,
};

/// Asks for changes for as long as there may be a connection and the file system is mounted.
pub(crate) async fn follow(volume: Weak<Volume>) {
    let mut request = Request::Events {};
    loop {
        // Nothing is held while waiting, so that the last one to go closes the connection.
        let Some(answer) = volume.upgrade().map(|volume| {
            volume.with(|inodes| inodes.echoes.ask());
            volume.client.call(&request)
        }) else {
            return;
        };
        let mut body = match answer.await {
            Ok(Reply::Extended(body)) => body,
            Err(Errno::NotConnected) => {
                let Some(again) = volume.upgrade().map(|volume| volume.client.connected()) else {
                    return;
                };
                if again.await {
                    request = Request::Events {};
                    if let Some(volume) = volume.upgrade() {
                        listen_again(&volume, Missed::Something);
                    }
                    continue;
                }
                return;
            }
            // A server of before: nobody can replay what it tells.
            Err(_) if matches!(request, Request::Events {}) => {
                request = Request::Changes {};
                continue;
            }
            _ => return,
        };
        let set = match request {
            Request::Events {} => EventSet::take(&mut body),
            _ => ChangeSet::take(&mut body).map(without_events),
        };
        let (Ok(set), Some(volume)) = (set, volume.upgrade()) else {
            return;
        };
        let lost = (!set.lost.is_empty()).then_some(match set.told {
            Told::Missed => Missed::Something,
            _ => Missed::Nothing,
        });
        let later = volume.with(|inodes| take(inodes, set, volume.replays.as_ref()));
        if let Some(missed) = lost {
            listen_again(&volume, missed);
        }
        for later in later {
            // Our own writes are on their way: what the change was is known when they are answered.
            let volume = Arc::clone(&volume);
            tokio::spawn(async move {
                volume.quiet(later.ino).await;
                volume.with(|inodes| {
                    if let (Some((place, touch)), Some(replays)) = (later.touch, &volume.replays) {
                        touched(inodes, replays, later.ino, place, later.now, touch);
                    }
                    if let Ok(inode) = inodes.get(later.ino)
                        && !same(&inode.known, &later.now)
                    {
                        changed(inodes, later.ino, &later.now);
                    }
                });
            });
        }
    }
}

/// Whether something happened that nobody told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missed {
    Nothing,
    Something,
}

/// Has the directories told of that are not any more: whoever watches them there does not ask again.
fn listen_again(volume: &Arc<Volume>, missed: Missed) {
    if volume.replays.is_none() {
        return;
    }
    let volume = Arc::clone(volume);
    tokio::spawn(async move {
        for ino in volume.with(|inodes| inodes.deaf()) {
            if volume.watch(ino).await.is_err() {
                continue;
            }
            let Some(replays) = &volume.replays else {
                return;
            };
            if missed == Missed::Something {
                replays.miss(ino);
                volume.with(|inodes| inodes.notices.push(Notice::Metadata(ino)));
            }
        }
    });
}

/// What a server of before tells.
fn without_events(set: ChangeSet) -> EventSet {
    let event = |change: Change| Event {
        directory: change.directory,
        name: change.name,
        happening: Happening::Entries,
        child: Child::Other,
        cookie: 0,
        now: change.now,
    };
    EventSet {
        lost: set.lost,
        told: Told::All,
        events: set.changes.into_iter().map(event).collect(),
    }
}

/// A file that is being written.
struct Later {
    ino: u64,
    now: Metadata,
    touch: Option<(Place, Touch)>,
}

/// Takes what changed in; gives files that are being written.
fn take(inodes: &mut Inodes, set: EventSet, replays: Option<&Replays>) -> Vec<Later> {
    let mut later = Vec::new();
    let told = set.told;
    for directory in set.lost {
        lose(inodes, directory);
    }
    let mut arrivals: HashMap<u32, Event> = HashMap::new();
    for event in &set.events {
        if event.happening == Happening::MovedTo {
            arrivals.insert(event.cookie, event.clone());
        }
    }
    for event in set.events {
        let mut touch = None;
        if let Some(replays) = replays {
            match replayed(inodes, replays, &event, &mut arrivals) {
                Outcome::Forget => {}
                Outcome::Done => continue,
                Outcome::Touched(how) => touch = Some((how, replays)),
            }
        }
        later.extend(apply(inodes, event, touch));
    }
    inodes.echoes.heard(told);
    later
}

/// What is left to do about an event.
enum Outcome {
    /// The kernel is to forget what it knows, if it is news.
    Forget,
    /// Nothing: the replay does it.
    Done,
    /// As before, and watchers are to hear of it.
    Touched(Touch),
}

/// Has an event replayed that is not the echo of something that the client did.
fn replayed(
    inodes: &mut Inodes,
    replays: &Replays,
    event: &Event,
    arrivals: &mut HashMap<u32, Event>,
) -> Outcome {
    let Some(parent) = inodes.by_id(event.directory) else {
        return Outcome::Forget;
    };
    if event.name.is_empty() {
        if event.happening == Happening::Attributes {
            attributes_of_itself(inodes, replays, parent, event);
        }
        return Outcome::Forget;
    }
    let place = Place {
        parent,
        name: event.name.clone(),
    };
    match event.happening {
        Happening::Entries => Outcome::Forget,
        Happening::Modified => Outcome::Touched(Touch::Content),
        Happening::Attributes => Outcome::Touched(Touch::Attributes),
        Happening::Created => {
            if hear(inodes, &place, Happening::Created) {
                return Outcome::Forget;
            }
            let who = now(event).map_or(Who::Unknown(event.child), Who::Is);
            made(inodes, replays, Replay::Make(place.clone(), who), &place)
        }
        Happening::Removed => {
            if !hear(inodes, &place, Happening::Removed) {
                let who = was(inodes, &place, event.child);
                replay(inodes, replays, Replay::Remove(place, who, event.child));
            }
            Outcome::Forget
        }
        Happening::MovedFrom => moved(inodes, replays, place, event, arrivals),
        Happening::MovedTo => {
            // Otherwise the name that it left has seen to it.
            if arrivals.remove(&event.cookie).is_none() {
                return Outcome::Done;
            }
            if hear(inodes, &place, Happening::MovedTo) {
                return Outcome::Forget;
            }
            let who = now(event).map_or(Who::Unknown(event.child), Who::Is);
            let to = Some(place.clone());
            made(
                inodes,
                replays,
                Replay::Move {
                    from: None,
                    to,
                    who,
                },
                &place,
            )
        }
    }
}

fn hear(inodes: &mut Inodes, place: &Place, happening: Happening) -> bool {
    let doing = (place.parent, place.name.clone(), happening);
    inodes.echoes.hear(&doing)
}

/// What has the name, if it can be what the event was about.
fn now(event: &Event) -> Option<Metadata> {
    let directory = event.child == Child::Directory;
    event
        .now
        .filter(|now| (now.kind() == FileKind::Directory) == directory)
}

/// What had the name.
fn was(inodes: &Inodes, place: &Place, child: Child) -> Who {
    let known = inodes.named(place.parent, &place.name).flatten();
    let directory = child == Child::Directory;
    let fits = |ino: &u64| {
        let kind = inodes.get(*ino).map(|inode| inode.known.kind());
        kind.is_ok_and(|kind| (kind == FileKind::Directory) == directory)
    };
    known.filter(fits).map_or(Who::Unknown(child), Who::Was)
}

fn replay(inodes: &mut Inodes, replays: &Replays, replay: Replay) -> bool {
    let admitted = replays.admit(&replay);
    if admitted {
        inodes.notices.push(Notice::Replay(replay));
    }
    admitted
}

/// Has a name replayed that is there now.
fn made(inodes: &mut Inodes, replays: &Replays, what: Replay, place: &Place) -> Outcome {
    let known = inodes.named(place.parent, &place.name).flatten();
    if !replay(inodes, replays, what) {
        return Outcome::Forget;
    }
    enter(inodes, place.parent);
    if let Some(ino) = known {
        // It may live on under another name, with one name less.
        inodes.doubt(ino);
        inodes.notices.push(Notice::Metadata(ino));
    }
    Outcome::Done
}

/// Names in a directory have changed.
fn enter(inodes: &mut Inodes, directory: u64) {
    if let Ok(inode) = inodes.get_mut(directory) {
        inode.epoch += 1;
    }
    drop_listing(inodes, directory);
}

fn moved(
    inodes: &mut Inodes,
    replays: &Replays,
    from: Place,
    event: &Event,
    arrivals: &mut HashMap<u32, Event>,
) -> Outcome {
    if hear(inodes, &from, Happening::MovedFrom) {
        return Outcome::Forget;
    }
    let arrival = arrivals.get(&event.cookie);
    let to = arrival.and_then(|arrival| {
        let parent = inodes.by_id(arrival.directory)?;
        let name = arrival.name.clone();
        Some((Place { parent, name }, arrival.clone()))
    });
    let Some((to, arrival)) = to else {
        let (who, from, to) = (was(inodes, &from, event.child), Some(from), None);
        replay(inodes, replays, Replay::Move { from, to, who });
        return Outcome::Forget;
    };
    let before = was(inodes, &from, event.child);
    let who = match (before, now(&arrival)) {
        (Who::Was(ino), Some(now)) if inodes.by_id(now.id) != Some(ino) => Who::Was(ino),
        (_, Some(now)) => Who::Is(now),
        (before, None) => before,
    };
    let replaced = inodes.named(to.parent, &to.name).flatten();
    let both = Replay::Move {
        from: Some(from.clone()),
        to: Some(to.clone()),
        who,
    };
    if !replay(inodes, replays, both) {
        return Outcome::Forget;
    }
    arrivals.remove(&event.cookie);
    for parent in [from.parent, to.parent] {
        enter(inodes, parent);
    }
    if let Some(ino) = replaced {
        inodes.doubt(ino);
        inodes.notices.push(Notice::Metadata(ino));
    }
    if event.now.is_some() {
        // Not all was as it looks: the two may have exchanged their names.
        for place in [from, to] {
            let notice = Notice::Name(place.parent, place.name);
            inodes.notices.push(notice);
        }
    }
    Outcome::Done
}

/// A directory whose attributes no event of the one above tells of.
fn attributes_of_itself(inodes: &mut Inodes, replays: &Replays, ino: u64, event: &Event) {
    let above = inodes.get(ino).ok().and_then(|inode| inode.names.last());
    let told = above.is_some_and(|(parent, _)| inodes.trust(*parent) == Trust::Told);
    let busy = inodes.get(ino).is_ok_and(|inode| inode.busy > 0);
    let Some(now) = event.now.filter(|_| !told && !busy) else {
        return;
    };
    if is_news(inodes, ino, now, Touch::Attributes) {
        replay(inodes, replays, Replay::LookAgain(ino));
    }
}

/// Whether watchers have not heard of a state, which they have then.
fn is_news(inodes: &mut Inodes, ino: u64, now: Metadata, touch: Touch) -> bool {
    let Ok(inode) = inodes.get_mut(ino) else {
        return true;
    };
    let heard = &mut inode.heard;
    if now.changed < heard.changed {
        return false;
    }
    if now.changed > heard.changed {
        *heard = Heard::default();
        heard.changed = now.changed;
    }
    let one = match touch {
        Touch::Content => &mut heard.content,
        Touch::Attributes => &mut heard.attributes,
    };
    !std::mem::replace(one, true)
}

fn touched(
    inodes: &mut Inodes,
    replays: &Replays,
    ino: u64,
    place: Place,
    now: Metadata,
    touch: Touch,
) {
    let happening = match touch {
        Touch::Content => Happening::Modified,
        Touch::Attributes => Happening::Attributes,
    };
    let made = (place.parent, place.name.clone(), Happening::Created);
    let own =
        inodes.echoes.may_hear(&(ino, Bytes::new(), happening)) || inodes.echoes.may_hear(&made);
    if is_news(inodes, ino, now, touch) && !own {
        replay(inodes, replays, Replay::Touch(place, now, touch));
    }
}

fn apply(inodes: &mut Inodes, event: Event, touch: Option<(Touch, &Replays)>) -> Option<Later> {
    let Event {
        directory,
        name,
        now,
        ..
    } = event;
    let parent = inodes.by_id(directory)?;
    let inode = inodes.get_mut(parent).ok()?;
    inode.epoch += 1;
    if name.is_empty() {
        let now = now?;
        if !same(&inode.known, &now) {
            inodes.doubt(parent);
            inodes.notices.push(Notice::Metadata(parent));
        }
        return None;
    }
    if let (Some((touch, replays)), Some(now)) = (touch, now) {
        let place = Place {
            parent,
            name: name.clone(),
        };
        let ino = inodes.number_of(&now);
        let busy = |inode: &Inode| inode.is_behind() || inode.busy > 0;
        if inodes.get(ino).is_ok_and(busy) {
            let touch = Some((place, touch));
            return Some(Later { ino, now, touch });
        }
        touched(inodes, replays, ino, place, now, touch);
    }
    let known = inodes.named(parent, &name);
    match (known, now) {
        // The echo of something that is known.
        (Some(None), None) => None,
        (Some(Some(ino)), Some(now)) if inodes.get(ino).is_ok_and(|inode| inode.id == now.id) => {
            let inode = inodes.get(ino).ok()?;
            if same(&inode.known, &now) {
                return None;
            }
            if inode.is_behind() {
                let touch = None;
                return Some(Later { ino, now, touch });
            }
            changed(inodes, ino, &now);
            None
        }
        (known, _) => {
            forget(inodes, parent, &name, known.flatten());
            drop_listing(inodes, parent);
            None
        }
    }
}

fn forget(inodes: &mut Inodes, parent: u64, name: &Bytes, child: Option<u64>) {
    inodes.unbind(parent, name);
    inodes.notices.push(Notice::Name(parent, name.clone()));
    if let Some(ino) = child {
        // It may live on under another name, with one name less.
        inodes.doubt(ino);
        inodes.notices.push(Notice::Metadata(ino));
    }
}

fn drop_listing(inodes: &mut Inodes, directory: u64) {
    if let Ok(inode) = inodes.get_mut(directory) {
        inode.listed = false;
        inodes.notices.push(Notice::Content(directory));
    }
}

/// Somebody else has changed a file.
fn changed(inodes: &mut Inodes, ino: u64, now: &Metadata) {
    inodes.doubt(ino);
    let Ok(inode) = inodes.get_mut(ino) else {
        return;
    };
    let content = Version::from(&inode.known) != Version::from(now);
    if content && now.kind() == FileKind::Regular {
        inode.pages = None;
        inode.forget_ahead();
        inodes.notices.push(Notice::Content(ino));
    } else {
        inodes.notices.push(Notice::Metadata(ino));
    }
}

/// Whether two readings are of one state; the last access is nobody's business.
fn same(mine: &Metadata, theirs: &Metadata) -> bool {
    let without = |metadata: &Metadata| Metadata {
        accessed: metadata.modified,
        ..*metadata
    };
    without(mine) == without(theirs)
}

/// Changes in the directory are no longer told: nothing known of it can be believed.
fn lose(inodes: &mut Inodes, directory: FileId) {
    let Some(parent) = inodes.by_id(directory) else {
        return;
    };
    if let Ok(inode) = inodes.get_mut(parent) {
        inode.epoch += 1;
        // One that was asked for is not known to be there: its asker sees the epoch.
        if inode.watch == Watch::Told {
            inode.watch = Watch::Not;
        }
    }
    inodes.echoes.lose(parent);
    inodes.doubt(parent);
    drop_listing(inodes, parent);
    for (name, child) in inodes.names_in(parent) {
        match child {
            None => {
                inodes.notices.push(Notice::Name(parent, name.clone()));
                inodes.unbind(parent, &name);
            }
            Some(ino) => {
                inodes.notices.push(Notice::NameDoubted(parent, name));
                inodes.doubt(ino);
                inodes.notices.push(Notice::Metadata(ino));
            }
        }
    }
}

/// What the trust in an answer about something in `directory` is, if the epoch was `epoch` before it was
/// asked for.
pub(crate) fn trust_since(inodes: &Inodes, directory: u64, epoch: u64) -> Trust {
    match inodes.get(directory) {
        Ok(inode) if inode.epoch == epoch => inodes.trust(directory),
        _ => Trust::Guess,
    }
}
