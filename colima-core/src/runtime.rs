//! Text that container runtimes read: the docker daemon's configuration and the docker CLI's contexts.
//!
//! Everything here is text in, text out. Where the text goes is the caller's business.
//!
//! ```
//! use std::net::Ipv4Addr;
//! use colima_core::runtime::{DaemonDefaults, daemon_json};
//!
//! let user = serde_json::json!({ "features": { "buildkit": false } });
//! let defaults = DaemonDefaults::new(Ipv4Addr::new(10, 0, 2, 2));
//! let json = daemon_json(user.as_object().unwrap(), &defaults)?;
//!
//! // One key of the user's leaves the other defaults alone.
//! assert_eq!(json["features"]["buildkit"], false);
//! assert_eq!(json["features"]["containerd-snapshotter"], true);
//! # Ok::<(), colima_core::runtime::DaemonJsonError>(())
//! ```

mod daemon_json;
pub mod docker_context;

pub use daemon_json::{DaemonDefaults, DaemonJsonError, Proxies, daemon_json, off_loopback};
