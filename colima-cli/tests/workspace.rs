//! What must hold for the workspace as a whole: who may depend on whom, that no test file lies
//! about unused, and that each library crate works for somebody who has nothing else of ours.

mod workspace {
    mod budgets;
    mod crate_graph;
    mod crates_alone;
    mod forgotten_tests;
    mod manifests;
}
