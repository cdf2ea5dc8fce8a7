//! The whole program against a real virtual machine, with the real docker command line.
//!
//! `make test` runs this with its own home under `target/`; by hand see `World::from_environment` for
//! the variables it needs. The cases share one machine as far as they can, so they run in this order, and
//! each brings the machine back to what it needs if the one before failed. Words on the command line
//! choose cases by name. `COLIMA_E2E=long` is the long form, `COLIMA_E2E_TRANSPORT=ssh` the whole over ssh.

#![expect(clippy::print_stdout, reason = "a test program reports")]

use std::{env, process::ExitCode};

mod e2e {
    pub(crate) mod another_user;
    pub(crate) mod certificates;
    pub(crate) mod command;
    pub(crate) mod command_line;
    pub(crate) mod containerd;
    pub(crate) mod containers;
    pub(crate) mod faults;
    pub(crate) mod hygiene;
    pub(crate) mod images;
    pub(crate) mod interrupted;
    pub(crate) mod life;
    pub(crate) mod mounts;
    pub(crate) mod newcomer;
    pub(crate) mod ports;
    pub(crate) mod process;
    pub(crate) mod provision;
    pub(crate) mod resources;
    pub(crate) mod streams;
    pub(crate) mod suite;
    pub(crate) mod suspend;
    pub(crate) mod update;
    pub(crate) mod world;
}

use colima_core::Bytes;
use e2e::{
    another_user, certificates, command_line, containerd, containers, faults, hygiene, images,
    interrupted, life, mounts, newcomer, ports, provision,
    resources::{self, Setting},
    streams::{self, Baseline},
    suite::Suite,
    suspend, update,
    world::{Form, OTHER_PROFILE, PROFILE, World},
};

fn main() -> ExitCode {
    let form = match env::var("COLIMA_E2E").as_deref() {
        Ok("long") => Form::Long,
        Ok(_) => Form::Short,
        Err(_) => {
            println!(
                "skipped: end to end: it needs minutes and directories, make test sets COLIMA_E2E"
            );
            return ExitCode::SUCCESS;
        }
    };
    let mut suite = Suite::new(World::from_environment(form));
    suite.world().prepare();

    relay(&mut suite);
    published(&mut suite);
    directories(&mut suite);
    suspends(&mut suite);
    breaks(&mut suite);
    verbs(&mut suite);
    lives(&mut suite);
    other_runtime(&mut suite);
    end(&mut suite);

    suite.world().clear();
    suite.close()
}

/// The docker command line through the relay, on the first boot.
fn relay(suite: &mut Suite) {
    suite.case("command_line::first_start", command_line::first_start);
    suite.case(
        "provision::scripts_ran_in_their_order",
        provision::scripts_ran_in_their_order,
    );
    suite.case(
        "provision::the_guest_is_as_configured",
        provision::the_guest_is_as_configured,
    );
    suite.case(
        "provision::what_a_restart_would_change_is_named",
        provision::what_a_restart_would_change_is_named,
    );
    suite.case("containers::version", containers::version);
    suite.case("containers::import", containers::import);
    let mut baseline = None;
    suite.case("streams::baseline", |world| {
        baseline = Some(Baseline::take(world));
    });
    suite.case(
        "containers::run_has_two_streams_and_a_code",
        containers::run_has_two_streams_and_a_code,
    );
    suite.case(
        "containers::exec_sees_the_end_of_its_input",
        containers::exec_sees_the_end_of_its_input,
    );
    suite.case(
        "containers::an_interactive_terminal",
        containers::an_interactive_terminal,
    );
    suite.case(
        "containers::logs_follow_to_the_end_of_the_container",
        containers::logs_follow_to_the_end_of_the_container,
    );
    suite.case(
        "containers::a_killed_client_is_only_its_own_trouble",
        containers::a_killed_client_is_only_its_own_trouble,
    );
    suite.case(
        "containers::copies_go_both_ways",
        containers::copies_go_both_ways,
    );
    suite.case(
        "containers::events_arrive_as_they_happen",
        containers::events_arrive_as_they_happen,
    );
    suite.case("images::the_classic_builder", images::the_classic_builder);
    if has_buildx(suite.world()) {
        suite.case(
            "images::buildkit_with_a_secret",
            images::buildkit_with_a_secret,
        );
    } else {
        suite.skip(
            "images::buildkit_with_a_secret",
            "docker has no buildx here",
        );
    }
    suite.case(
        "images::save_and_load_keep_the_digests",
        images::save_and_load_keep_the_digests,
    );
    if env::var_os("COLIMA_TEST_REGISTRY").is_some() {
        suite.case("images::push_and_pull", images::push_and_pull);
        suite.case(
            "certificates::registries_of_private_authorities",
            certificates::registries_of_private_authorities,
        );
    } else {
        let why = "there is no docker-registry here";
        suite.skip("images::push_and_pull", why);
        suite.skip("certificates::registries_of_private_authorities", why);
    }
    suite.case(
        "streams::fifty_connections_at_once",
        streams::fifty_connections_at_once,
    );
    if let Some(baseline) = baseline {
        suite.case("streams::everything_is_given_back", |world| {
            baseline.holds_again(world);
        });
    }
}

/// Published ports, still on the first boot.
fn published(suite: &mut Suite) {
    suite.case(
        "ports::published_ports_take_connections_at_once",
        ports::published_ports_take_connections_at_once,
    );
    suite.case(
        "ports::a_restarted_container_is_there_at_once",
        ports::a_restarted_container_is_there_at_once,
    );
    suite.case(
        "ports::addresses_are_those_that_were_asked_for",
        ports::addresses_are_those_that_were_asked_for,
    );
    let name = "ports::an_address_of_the_host_alone";
    match ports::outward_address() {
        Some(address) => suite.case(name, |world| {
            ports::an_address_of_the_host_alone(world, address);
        }),
        None => suite.skip(name, "this host has no address but its loopback's"),
    }
    suite.case(
        "ports::a_port_in_use_fails_the_start_and_names_the_owner",
        ports::a_port_in_use_fails_the_start_and_names_the_owner,
    );
    suite.case(
        "ports::datagrams_find_their_way_back",
        ports::datagrams_find_their_way_back,
    );
    suite.case(
        "ports::servers_of_the_machine_appear_too",
        ports::servers_of_the_machine_appear_too,
    );
}

/// Host directories, still on the first boot.
fn directories(suite: &mut Suite) {
    suite.case(
        "mounts::guest_and_host_see_the_same",
        mounts::guest_and_host_see_the_same,
    );
    suite.case("mounts::containers_have_them", mounts::containers_have_them);
    suite.case("mounts::host_edits_are_seen", mounts::host_edits_are_seen);
    suite.case("mounts::read_only_is_so", mounts::read_only_is_so);
    suite.case(
        "mounts::a_build_in_the_guest_is_that_of_the_host",
        mounts::a_build_in_the_guest_is_that_of_the_host,
    );
    suite.case(
        "mounts::a_killed_worker_is_replaced",
        mounts::a_killed_worker_is_replaced,
    );
    suite.case(
        "mounts::a_killed_daemon_takes_its_workers_along",
        mounts::a_killed_daemon_takes_its_workers_along,
    );
    suite.case(
        "mounts::a_killed_server_of_the_guest_is_followed",
        mounts::a_killed_server_of_the_guest_is_followed,
    );
    suite.case(
        "mounts::a_killed_client_is_replaced",
        mounts::a_killed_client_is_replaced,
    );
    suite.case(
        "mounts::workers_have_nothing_else",
        mounts::workers_have_nothing_else,
    );
    suite.case(
        "mounts::owners_and_nodes_are_kept",
        mounts::owners_and_nodes_are_kept,
    );
    suite.case(
        "mounts::keys_and_state_are_out_of_reach",
        mounts::keys_and_state_are_out_of_reach,
    );
    suite.case("mounts::they_come_and_go", mounts::they_come_and_go);
    suite.case(
        "mounts::ssh_begins_where_we_are",
        mounts::ssh_begins_where_we_are,
    );
    suite.skip(
        "mounts::a_git_repository",
        "the guest has no git, and there is no image with one here",
    );
}

/// Stops that are none to what runs inside, still on the first boot.
fn suspends(suite: &mut Suite) {
    suite.case("suspend::what_runs_goes_on", suspend::what_runs_goes_on);
    suite.case(
        "suspend::a_stop_says_what_it_did",
        suspend::a_stop_says_what_it_did,
    );
    suite.case(
        "suspend::a_killed_daemon_loses_nothing",
        suspend::a_killed_daemon_loses_nothing,
    );
    suite.case(
        "suspend::an_interrupted_start_is_one_or_the_other",
        suspend::an_interrupted_start_is_one_or_the_other,
    );
    suite.case(
        "suspend::what_cannot_be_loaded_is_told_and_no_file_is_lost",
        suspend::what_cannot_be_loaded_is_told_and_no_file_is_lost,
    );
}

/// What breaks and is mended, still on the first boot.
fn breaks(suite: &mut Suite) {
    suite.case(
        "faults::each_is_told_and_mended",
        faults::each_is_told_and_mended,
    );
    suite.case("faults::a_sleep_is_noticed", faults::a_sleep_is_noticed);
}

/// The verbs, still on one boot, and its orderly end.
fn verbs(suite: &mut Suite) {
    suite.case(
        "command_line::a_second_start_finds_it_running",
        command_line::a_second_start_finds_it_running,
    );
    suite.case(
        "command_line::status_and_list",
        command_line::status_and_list,
    );
    suite.case(
        "command_line::ssh_passes_code_input_and_arguments",
        command_line::ssh_passes_code_input_and_arguments,
    );
    suite.case(
        "command_line::ssh_is_the_hosts_user",
        command_line::ssh_is_the_hosts_user,
    );
    suite.case(
        "command_line::version_logs_completion",
        command_line::version_logs_completion,
    );
    suite.case(
        "command_line::an_overriding_variable_is_pointed_out",
        command_line::an_overriding_variable_is_pointed_out,
    );
    suite.case(
        "hygiene::everything_is_the_owners_alone",
        hygiene::everything_is_the_owners_alone,
    );
    suite.case(
        "hygiene::nobody_listens_on_tcp",
        hygiene::nobody_listens_on_tcp,
    );
    suite.case("resources::the_first_setting", |world| {
        world.machine_runs();
        FIRST.is_inside(world, PROFILE);
    });
    suite.case(
        "life::a_killed_daemon_is_replaced",
        life::a_killed_daemon_is_replaced,
    );
    suite.case("update::containers_run_again", update::containers_run_again);
    suite.case(
        "update::without_an_archive_it_says_why",
        update::without_an_archive_it_says_why,
    );
    suite.case("life::leave_something", life::leave_something);
    suite.case("command_line::stop", command_line::stop);
}

const FIRST: Setting = Setting {
    cpus: 2,
    memory: Bytes::gib(2),
    disk: Bytes::gib(10),
};
const SECOND: Setting = Setting {
    cpus: 1,
    memory: Bytes::gib(1),
    disk: Bytes::gib(12),
};
const THIRD: Setting = Setting {
    cpus: 3,
    memory: Bytes::mib(1536),
    disk: Bytes::gib(12),
};
const SMALL: Setting = Setting {
    cpus: 1,
    memory: Bytes::mib(768),
    disk: Bytes::gib(2),
};

/// Every boot after the first has something of its own to show.
fn lives(suite: &mut Suite) {
    suite.case(
        "resources::a_shrink_is_refused",
        resources::a_shrink_is_refused,
    );
    suite.case("interrupted::leaves_nothing", interrupted::leaves_nothing);
    suite.case("resources::a_second_setting_and_a_grown_disk", |world| {
        world.machine_is_stopped();
        SECOND.start(world, PROFILE);
        SECOND.is_inside(world, PROFILE);
    });
    suite.case(
        "life::all_is_there_after_stop_and_growth",
        life::it_is_still_there,
    );
    suite.case(
        "resources::beyond_memory_only_the_container_dies",
        resources::beyond_memory_only_the_container_dies,
    );
    suite.case(
        "life::a_restart_is_a_new_boot",
        life::a_restart_is_a_new_boot,
    );
    suite.case(
        "suspend::new_settings_take_an_orderly_boot",
        suspend::new_settings_take_an_orderly_boot,
    );
    suite.case(
        "life::a_killed_machine_is_told_and_starts_again",
        life::a_killed_machine_is_told_and_starts_again,
    );
    suite.case("life::two_starts_after_a_delete_are_one_machine", |world| {
        world.colima(["delete", "--force"]).ok();
        life::two_starts_are_one_machine(world, &THIRD);
        THIRD.is_inside(world, PROFILE);
    });
    suite.case("life::all_is_there_after_a_delete", life::it_is_still_there);
    suite.case("life::two_profiles_at_once", |world| {
        world.machine_runs();
        life::a_port_for_ssh(world, &SMALL);
        SMALL.is_inside(world, OTHER_PROFILE);
        life::profiles_are_apart(world);
    });
    suite.case("mounts::the_home_is_shared_by_default", |world| {
        if world.status_of(OTHER_PROFILE).is_none() {
            SMALL.start(world, OTHER_PROFILE);
        }
        mounts::the_home_is_shared_by_default(world);
    });
    suite.case("resources::a_full_disk_is_an_error_inside", |world| {
        resources::a_full_disk_is_an_error_inside(world, &SMALL);
    });
    let full = "faults::a_full_host_disk_is_waited_for";
    match rustix::process::getuid().is_root() {
        true => suite.case(full, |world| {
            faults::a_full_host_disk_is_waited_for(world, &SMALL);
        }),
        false => suite.skip(full, "only root may mount a file system that is small"),
    }
}

/// Another runtime, in the small machine.
fn other_runtime(suite: &mut Suite) {
    suite.case("containerd::the_socket_is_the_hosts", |world| {
        containerd::the_socket_is_the_hosts(world, &SMALL);
    });
    suite.case(
        "containerd::a_nerdctl_of_the_users",
        containerd::a_nerdctl_of_the_users,
    );
    suite.case("containerd::what_it_has_is_kept", |world| {
        containerd::what_it_has_is_kept(world, &SMALL);
    });
}

fn end(suite: &mut Suite) {
    suite.case(
        "hygiene::delete_leaves_nothing",
        hygiene::delete_leaves_nothing,
    );
    let newcomer = "newcomer::reads_the_readme_of_colima";
    match newcomer::cannot() {
        None => suite.case(newcomer, newcomer::reads_the_readme_of_colima),
        Some(why) => suite.skip(newcomer, why),
    }
    let another_user = "another_user::may_do_the_same";
    if rustix::process::getuid().is_root() {
        suite.case(another_user, another_user::may_do_the_same);
    } else {
        suite.skip(
            another_user,
            "this run is already that of a user who is not root",
        );
    }
}

fn has_buildx(world: &World) -> bool {
    world
        .docker(["buildx", "version"])
        .finish()
        .status
        .success()
}
