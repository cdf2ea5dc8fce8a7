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
    let (stop, resume) = (Event::Qemu(Qmp::Stop), Event::Qemu(Qmp::Resume));
    let found = Event::Found(RunState::IoError);
    let told = vec![Do::Tell(Happening::DiskFull), Do::AwaitRoom];
    let error = disk_error(Room::None);
    // The error before the stop, after it, or held back until all is over.
    let early = [error.clone(), stop.clone()];
    assert_eq!(after(&early), (State::Stopped, vec![Do::Ask]));
    let late = [stop.clone(), error.clone()];
    assert_eq!(after(&late), (State::Stopped, vec![]));
    for stopped in [early, late] {
        let paused = [&stopped[..], std::slice::from_ref(&found)].concat();
        assert_eq!(after(&paused), (State::Full, told.clone()));
        let room = [&paused[..], &[Event::Room]].concat();
        assert_eq!(after(&room), (State::Full, vec![Do::Continue]));
        let goes_on = vec![Do::SetClock, Do::Tell(Happening::Continued)];
        let continued = [&room[..], std::slice::from_ref(&resume)].concat();
        assert_eq!(after(&continued), (State::Running, goes_on));
        let error = [&continued[..], std::slice::from_ref(&error)].concat();
        assert_eq!(after(&error), (State::Running, vec![]));
        // The room did not suffice.
        let again = [&error[..], &stopped, std::slice::from_ref(&found)].concat();
        assert_eq!(after(&again), (State::Full, told.clone()));
    }
    // The daemon was killed meanwhile.
    assert_eq!(after(&[found]), (State::Full, told));
}

#[test]
fn a_pause_of_somebody_elses_is_not_ended() {
    let paused = [Event::Qemu(Qmp::Stop), Event::Found(RunState::Paused)];
    let told = vec![Do::Tell(Happening::Paused)];
    assert_eq!(after(&paused), (State::Paused, told));
    let room = [&paused[..], &[Event::Room]].concat();
    assert_eq!(after(&room), (State::Paused, vec![]));
    let resumed = [&paused[..], &[Event::Qemu(Qmp::Resume)]].concat();
    assert_eq!(after(&resumed).0, State::Running);
    // It was over before anybody could ask.
    let brief = [Event::Qemu(Qmp::Stop), Event::Found(RunState::Running)];
    assert_eq!(after(&brief), (State::Running, vec![]));
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
    for state in [State::Running, State::Stopped, State::Full, State::Paused] {
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
