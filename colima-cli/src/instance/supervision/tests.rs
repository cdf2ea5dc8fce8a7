use tokio::time::timeout;

use super::*;

fn disk_error(room: Room) -> Event {
    Event::Qemu(Qmp::BlockIoError {
        node: "disk1".to_owned(),
        operation: "write".to_owned(),
        reason: "as it is".to_owned(),
        room,
    })
}

/// Where a state comes to over these events, and what is done last.
fn after(events: &[Event]) -> (State, Vec<Do>) {
    let begin = (State::Running, Vec::new());
    events
        .iter()
        .fold(begin, |(state, _), event| state.on(event.clone()))
}

#[test]
fn a_full_disk_pauses_and_room_continues() {
    let full = disk_error(Room::None);
    let (stop, resume) = (Event::Qemu(Qmp::Stop), Event::Qemu(Qmp::Resume));
    assert_eq!(after(std::slice::from_ref(&full)), (State::NoRoom, vec![]));
    assert_eq!(after(&[full.clone(), full.clone()]).0, State::NoRoom);
    let paused = [full.clone(), full.clone(), stop.clone()];
    let told = vec![Do::Tell(Happening::DiskFull), Do::AwaitRoom];
    assert_eq!(after(&paused), (State::Full, told.clone()));
    let room = [&paused[..], &[Event::Room]].concat();
    assert_eq!(after(&room), (State::Full, vec![Do::Continue]));
    let goes_on = vec![Do::SetClock, Do::Tell(Happening::Continued)];
    let continued = [&room[..], std::slice::from_ref(&resume)].concat();
    assert_eq!(after(&continued), (State::Running, goes_on));
    // The room did not suffice.
    let again = [&continued[..], &[full, stop]].concat();
    assert_eq!(after(&again), (State::Full, told.clone()));
    // The daemon was killed meanwhile.
    assert_eq!(
        after(&[Event::Found(RunState::IoError)]),
        (State::Full, told)
    );
}

#[test]
fn a_pause_of_somebody_elses_is_not_ended() {
    let paused = [Event::Qemu(Qmp::Stop)];
    let told = vec![Do::Tell(Happening::Paused)];
    assert_eq!(after(&paused), (State::Paused, told));
    let room = [&paused[..], &[Event::Room]].concat();
    assert_eq!(after(&room), (State::Paused, vec![]));
    let resumed = [&paused[..], &[Event::Qemu(Qmp::Resume)]].concat();
    assert_eq!(after(&resumed).0, State::Running);
    assert_eq!(
        after(&[Event::Found(RunState::Running)]),
        (State::Running, vec![])
    );
}

#[test]
fn other_errors_are_told_and_stop_nothing() {
    let (state, told) = after(&[disk_error(Room::Some)]);
    assert_eq!(state, State::Running);
    assert!(
        matches!(&told[..], [Do::Tell(Happening::DiskError { disk, .. })] if disk == "disk1"),
        "{told:?}"
    );
    let errors = DiskErrors::default();
    assert_eq!(errors.problem(), None);
    if let Do::Tell(happening) = &told[0] {
        errors.note(happening);
    }
    let problem = errors.problem().unwrap();
    assert_eq!(
        problem.what,
        "the host could not write disk1 of the machine: as it is"
    );
}

#[test]
fn a_gap_sets_the_clock_in_every_state() {
    for state in [State::Running, State::NoRoom, State::Full, State::Paused] {
        let (next, done) = state.on(Event::Gap(Duration::from_secs(61)));
        assert_eq!(next, state);
        let told = Do::Tell(Happening::Slept { seconds: 61 });
        assert_eq!(done, [Do::SetClock, told]);
    }
}

#[tokio::test]
async fn a_gap_is_measured_by_a_clock_that_does_not_sleep() {
    let mut late = Late::begin();
    // As after a sleep of a minute.
    late.ticked = now().saturating_sub(Duration::from_secs(60));
    let gap = late.gap().await;
    assert!(gap >= Duration::from_secs(60), "{gap:?}");
    let quiet = timeout(TICK * 2, late.gap()).await;
    // A host that is this busy did not run it either.
    assert!(quiet.is_err() || quiet.is_ok_and(|gap| gap > GAP));
}
