//! Text that container runtimes read.
