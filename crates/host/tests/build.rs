//! Bakes and builds as they are: a real base, real containers, real downloads.
//!
//! The base and the build image take minutes to make, so all cases share one data directory that stays between runs. Its
//! containers live in this process' own mounts, which have to be made before any thread: hence this `main`. The same
//! program is also the runner inside of builds.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "build/apart.rs"]
mod apart;
#[path = "build/bake.rs"]
mod bake;
#[path = "build/hostile.rs"]
mod hostile;
#[path = "build/images.rs"]
mod images;
#[path = "build/keys.rs"]
mod keys;
#[path = "build/kill.rs"]
mod kill;
#[path = "build/paths.rs"]
mod paths;
#[path = "build/share.rs"]
mod share;
#[path = "build/spec.rs"]
mod spec;
#[path = "build/stop.rs"]
mod stop;
#[path = "support/mod.rs"]
mod support;
#[path = "build/tags.rs"]
mod tags;
#[path = "build/world.rs"]
mod world;
#[path = "build/yard.rs"]
mod yard;

use std::process::ExitCode;

use world::World;

type Case = (
    &'static str,
    fn(&World) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>,
);

macro_rules! cases {
    ($($name:path),* $(,)?) => { &[$((stringify!($name), |world| Box::pin($name(world)))),*] };
}

const CASES: &[Case] = cases![
    bake::an_image_is_baked_once,
    bake::downloads_are_a_branch_s_own,
    bake::layers_are_a_branch_s_own,
    bake::what_a_deleted_one_baked_is_not_the_next_one_s,
    bake::an_image_that_another_branch_made_first_is_made_once_more_and_not_again,
    bake::layers_hold_real_ids_and_deletions,
    bake::a_failing_script_says_why,
    bake::what_scripts_enable_is_in_the_image_and_nothing_else_of_systemctl,
    bake::two_at_a_time_make_one_layer,
    bake::a_bake_is_stopped_by_its_deadline,
    bake::a_bake_s_time_is_not_that_of_those_before_it,
    bake::a_stopped_bake_ends_unless_another_waits_for_its_layer,
    bake::a_sweep_waits_for_no_bake_and_takes_nothing_from_one,
    images::what_is_exported_comes_back_as_the_same_image,
    images::other_tools_read_what_is_exported,
    images::a_registry_s_image_is_a_base,
    images::registries_ask_who_one_is,
    images::registries_inside_are_not_reached,
    tags::each_build_asks_what_its_tag_is_now,
    tags::a_bake_asks_for_a_base_that_nobody_asked_for_lately,
    tags::a_private_image_is_one_to_build_in,
    images::a_tar_and_a_layout_are_bases,
    images::two_bakes_from_nothing_are_one_image,
    images::bases_are_made_and_made_again_the_same,
    share::ten_apps_share_their_base_on_disk_and_in_memory,
    share::other_runtimes_run_what_is_exported,
    share::bakes_in_two_places_are_one_image,
    kill::a_killed_bake_leaves_nothing,
    kill::a_bake_that_is_killed_at_any_instant_is_taken_up_as_it_was,
    kill::a_build_that_is_killed_at_any_instant_is_made_once,
    kill::a_build_ends_with_who_listens_to_it,
    yard::a_python_app_is_built_and_tested,
    yard::a_failing_command_stops_its_phase,
    yard::an_early_failure_ends_the_build,
    yard::state_lives_from_command_to_command,
    yard::version_0_1_has_a_shell_for_each_command,
    yard::secrets_are_masked,
    yard::artifacts_are_chosen,
    yard::tests_that_fail_stop_a_release,
    yard::runtimes_are_checked,
    yard::limits_stop_a_build,
    hostile::hostile_sources_are_refused,
    hostile::a_runner_that_cannot_begin_says_why,
    hostile::absolute_links_are_data,
    yard::caches_are_kept,
    apart::builds_reach_neither_the_machine_nor_each_other,
    apart::builds_reach_no_host_and_no_private_network_that_nobody_allows,
    spec::failures_are_followed_by_what_the_file_says,
    spec::a_build_that_is_to_be_retried_begins_anew,
    spec::the_commands_of_codebuild_are_there,
    spec::artifacts_have_names_and_others_beside_them,
    paths::paths_of_artifacts_and_reports_hold_variables,
    spec::what_a_build_leaves_holds_no_secret,
    spec::a_variable_that_is_too_long_to_be_exported_is_named,
    spec::reports_of_every_kind_are_compared_and_gate,
    spec::caches_have_keys_and_branches,
    keys::a_shell_reads_the_key_of_a_cache,
    keys::keys_may_be_long,
    spec::lines_have_the_times_when_they_came,
    spec::a_build_that_failed_fixes_no_cache,
    spec::downloads_of_branches_do_not_meet,
    spec::caches_of_tenants_do_not_meet,
    spec::builders_must_be_what_a_build_asks_for,
    spec::git_is_given_credentials_for_one_host,
    spec::runtimes_are_added_when_they_are_asked_for,
    yard::builds_wait_their_turn_and_repeat,
    stop::a_stopped_build_ends_at_once_and_stays_stopped,
    stop::a_build_that_is_stopped_while_its_source_comes_leaves_nothing,
    stop::a_build_that_nobody_waits_for_is_cleared_away,
    stop::a_build_that_waits_too_long_for_its_turn_is_given_up,
    stop::what_a_deleted_one_s_builds_keep_is_not_the_next_one_s,
    stop::a_build_has_the_processors_that_it_may_have,
    yard::sweeping_keeps_what_is_needed,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let own = std::env::args().next().unwrap_or_default();
    let own = own.rsplit('/').next().unwrap_or_default();
    if host::build::tools::is_tool(own) {
        return host::build::tools::main(own, &arguments);
    }
    if host::agent::systemctl::is_name(own) {
        return host::agent::systemctl::main(own, &arguments);
    }
    if arguments
        .first()
        .is_some_and(|argument| argument == "build-runner")
    {
        return host::build::runner::main();
    }
    if let [first, node, rest @ ..] = arguments.as_slice()
        && first == kill::BAKES
    {
        kill::bake(node, rest.first().map(String::as_str));
        return ExitCode::SUCCESS;
    }
    if let [first, node, ticket, rest @ ..] = arguments.as_slice()
        && first == kill::BUILDS
    {
        kill::build(node, ticket, !rest.is_empty());
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        // Nothing is ignored here: test runners ask for that list too.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen: Vec<&Case> = CASES
        .iter()
        .filter(|(name, _)| {
            filter.is_none_or(|filter| {
                if exact {
                    name == filter
                } else {
                    name.contains(filter.as_str())
                }
            })
        })
        .collect();
    if chosen.is_empty() || !support::can_run() {
        return ExitCode::SUCCESS;
    }
    world::run(|world| async move {
        for (name, case) in chosen {
            println!("case {name}");
            case(&world).await;
        }
        world
    });
    println!("test result: ok");
    ExitCode::SUCCESS
}
