//! The one place where environment variables and the user's identity are read.

use std::os::unix::fs::MetadataExt as _;
use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use colima_core::runtime::Proxies;

use crate::command_error::{CommandError, ErrorKind};

/// What the program was told by its surroundings.
///
/// An empty variable counts as one that is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `HOME`, else the home directory of the user in `/etc/passwd`.
    pub home: Option<PathBuf>,
    /// `COLIMA_HOME`.
    pub colima_home: Option<PathBuf>,
    /// `COLIMA_CACHE_HOME`.
    pub colima_cache_home: Option<PathBuf>,
    /// `COLIMA_PROFILE`.
    pub profile: Option<String>,
    /// `COLIMA_SAVE_CONFIG`.
    pub save_config: Option<bool>,
    /// `COLIMA_GUEST_DIR`: where the guest's program is, for trees that are not installed.
    pub guest_dir: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, if absolute.
    pub xdg_config_home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`, if absolute.
    pub xdg_cache_home: Option<PathBuf>,
    /// `DOCKER_CONFIG`.
    pub docker_config: Option<PathBuf>,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `NO_COLOR`, `CLICOLOR_FORCE` and `TERM` taken together.
    pub color: ColorWish,
    /// `TERM`, unless it is `dumb`: the terminal can rewrite a line.
    pub term: Option<String>,
    /// `EDITOR`: a command, perhaps with arguments.
    pub editor: Option<String>,
    /// `TERM_PROGRAM`: the program that shows the terminal.
    pub term_program: Option<String>,
    /// Variables of nerdctl and containerd, which are the guest's to read.
    pub nerdctl: Vec<(String, String)>,
    /// `PATH`: where programs are looked for.
    pub search_path: Vec<PathBuf>,
    /// Proxies of the host: `http_proxy`, `https_proxy`, `no_proxy`, in either case.
    pub proxies: Proxies,
    /// Who runs the program.
    pub user: HostUser,
}

/// What nerdctl reads (its document `config.md`).
const NERDCTL_VARIABLES: [&str; 5] = [
    "CONTAINERD_NAMESPACE",
    "CONTAINERD_SNAPSHOTTER",
    "NERDCTL_EXPERIMENTAL",
    "NERDCTL_HOST_GATEWAY_IP",
    "NERDCTL_TOML",
];

/// Whether colours are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorWish {
    /// On a terminal.
    #[default]
    Auto,
    /// Always (`CLICOLOR_FORCE`).
    Always,
    /// Never (`NO_COLOR`, or a dumb terminal).
    Never,
}

/// The host's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUser {
    /// Login name: of `/etc/passwd`, else `USER`, else `LOGNAME`, else `uidN`.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

impl Environment {
    /// Reads the environment of this process.
    #[must_use]
    pub fn read() -> Self {
        // Without the file (as in a container without users) the variables have to do.
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::from_variables(
            |name| std::env::var_os(name),
            &passwd,
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        )
    }

    /// The same from given variables, text of `/etc/passwd` and numbers.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        passwd: &str,
        uid: u32,
        gid: u32,
    ) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        // A relative one counts from where we are now; the daemon works elsewhere.
        let path = |name: &str| {
            let path = PathBuf::from(set(name)?);
            Some(std::path::absolute(&path).unwrap_or(path))
        };
        let absolute = |name: &str| {
            set(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let either = |name: &str| text(name).or_else(|| text(&name.to_ascii_uppercase()));

        let account = Account::of(passwd, uid);
        let name = account
            .as_ref()
            .map(|account| account.name.to_owned())
            .or_else(|| text("USER"))
            .or_else(|| text("LOGNAME"))
            .unwrap_or_else(|| format!("uid{uid}"));
        let term = text("TERM").filter(|term| term != "dumb");
        let color = if set("NO_COLOR").is_some() {
            ColorWish::Never
        } else if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
            ColorWish::Always
        } else if variable("TERM").as_deref() == Some(OsStr::new("dumb")) {
            ColorWish::Never
        } else {
            ColorWish::Auto
        };
        Self {
            home: path("HOME").or_else(|| account.map(|account| account.home.into())),
            colima_home: path("COLIMA_HOME"),
            colima_cache_home: path("COLIMA_CACHE_HOME"),
            profile: text("COLIMA_PROFILE"),
            save_config: text("COLIMA_SAVE_CONFIG")
                .map(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "f" | "false")),
            guest_dir: path("COLIMA_GUEST_DIR"),
            xdg_config_home: absolute("XDG_CONFIG_HOME"),
            xdg_cache_home: absolute("XDG_CACHE_HOME"),
            docker_config: path("DOCKER_CONFIG"),
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            color,
            term,
            editor: text("EDITOR"),
            term_program: text("TERM_PROGRAM"),
            nerdctl: NERDCTL_VARIABLES
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), text(name)?)))
                .collect(),
            search_path: set("PATH")
                .map(|value| std::env::split_paths(&value).collect())
                .unwrap_or_default(),
            proxies: Proxies {
                http: either("http_proxy"),
                https: either("https_proxy"),
                no_proxy: either("no_proxy"),
            },
            user: HostUser { name, uid, gid },
        }
    }

    /// The absolute path of `program`, as a shell would find it, and in `/usr/sbin` and `/sbin`, which
    /// an ordinary user's `PATH` often lacks.
    #[must_use]
    pub fn find_program(&self, program: &str) -> Option<PathBuf> {
        let system = ["/usr/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        let places = self
            .search_path
            .iter()
            .filter(|place| place.is_absolute())
            .chain(&system);
        places.map(|place| place.join(program)).find(|path| {
            let metadata = fs::metadata(path);
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
        })
    }

    /// The directory of all profiles: `COLIMA_HOME`, whether it exists or not; else `~/.colima` if it
    /// exists; else `$XDG_CONFIG_HOME/colima` if the variable is set; else `~/.config/colima` on Linux
    /// or where it exists; else `~/.colima`.
    ///
    /// # Errors
    ///
    /// There is neither `COLIMA_HOME` nor a home directory.
    pub fn state_root(&self) -> Result<PathBuf, CommandError> {
        self.state_root_with(Path::is_dir)
    }

    fn state_root_with(&self, exists: impl Fn(&Path) -> bool) -> Result<PathBuf, CommandError> {
        if let Some(home) = &self.colima_home {
            return std::path::absolute(home).map_err(|error| {
                CommandError::new(ErrorKind::Failure, "COLIMA_HOME cannot be used")
                    .caused_by(&error)
            });
        }
        let dot_colima = self.home()?.join(".colima");
        let dot_config = self.home()?.join(".config/colima");
        Ok(if exists(&dot_colima) {
            dot_colima
        } else if let Some(config) = &self.xdg_config_home {
            config.join("colima")
        } else if cfg!(not(target_os = "macos")) || exists(&dot_config) {
            dot_config
        } else {
            dot_colima
        })
    }

    /// The directory for images and other files that can be made again: `COLIMA_CACHE_HOME`, else
    /// `colima` below `XDG_CACHE_HOME`, else below the system's cache directory of the user.
    ///
    /// # Errors
    ///
    /// None of the variables is set and there is no home directory.
    pub fn cache_root(&self) -> Result<PathBuf, CommandError> {
        if let Some(cache) = &self.colima_cache_home {
            return std::path::absolute(cache).map_err(|error| {
                CommandError::new(ErrorKind::Failure, "COLIMA_CACHE_HOME cannot be used")
                    .caused_by(&error)
            });
        }
        let below_home = if cfg!(target_os = "macos") {
            "Library/Caches"
        } else {
            ".cache"
        };
        Ok(match &self.xdg_cache_home {
            Some(cache) => cache.join("colima"),
            None => self.home()?.join(below_home).join("colima"),
        })
    }

    /// The directory of the docker CLI's configuration: `DOCKER_CONFIG`, else `~/.docker`.
    ///
    /// # Errors
    ///
    /// The variable is not set and there is no home directory.
    pub fn docker_config_dir(&self) -> Result<PathBuf, CommandError> {
        match &self.docker_config {
            Some(dir) => Ok(dir.clone()),
            None => Ok(self.home()?.join(".docker")),
        }
    }

    /// The user's home directory.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn home(&self) -> Result<&Path, CommandError> {
        self.home.as_deref().ok_or_else(|| {
            CommandError::new(ErrorKind::Failure, "there is no home directory")
                .hint("set HOME, or COLIMA_HOME, COLIMA_CACHE_HOME and DOCKER_CONFIG")
        })
    }
}

/// A line of `/etc/passwd`.
struct Account<'t> {
    name: &'t str,
    home: &'t str,
}

impl<'t> Account<'t> {
    fn of(passwd: &'t str, uid: u32) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let number: u32 = fields.nth(1)?.parse().ok()?;
            let home = fields.nth(2)?;
            (number == uid && !name.is_empty()).then_some(Self { name, home })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann,,,:/home/ann:/bin/bash\n";

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        Environment::from_variables(lookup, PASSWD, 1000, 100)
    }

    #[test]
    fn the_user_is_found_without_variables() {
        let bare = environment(&[]);
        assert_eq!(bare.user.name, "ann");
        assert_eq!(bare.home.as_deref(), Some(Path::new("/home/ann")));
        let stranger = Environment::from_variables(|_| None, PASSWD, 7, 7);
        assert_eq!(
            (stranger.user.name.as_str(), &stranger.home),
            ("uid7", &None)
        );
        assert!(stranger.state_root().is_err());
    }

    #[test]
    fn the_home_is_where_colima_has_it() {
        let root = |variables: &[(&str, &str)], existing: &[&str]| {
            environment(variables)
                .state_root_with(|path| existing.iter().any(|dir| Path::new(dir) == path))
                .unwrap()
        };
        let xdg = ("XDG_CONFIG_HOME", "/xdg");
        assert_eq!(
            root(&[("COLIMA_HOME", "/gone"), xdg], &["/home/ann/.colima"]),
            Path::new("/gone")
        );
        assert_eq!(
            root(&[xdg], &["/home/ann/.colima"]),
            Path::new("/home/ann/.colima")
        );
        assert_eq!(root(&[xdg], &[]), Path::new("/xdg/colima"));
        assert_eq!(
            root(
                &[("XDG_CONFIG_HOME", "relative")],
                &["/home/ann/.config/colima"]
            ),
            Path::new("/home/ann/.config/colima")
        );
        #[cfg(target_os = "linux")]
        assert_eq!(root(&[], &[]), Path::new("/home/ann/.config/colima"));
        // As every other variable, an empty one is none.
        assert_eq!(
            root(&[("COLIMA_HOME", "")], &["/home/ann/.colima"]),
            Path::new("/home/ann/.colima")
        );
    }

    #[test]
    fn colours_follow_the_conventions() {
        for (variables, wish) in [
            (&[("TERM", "xterm")][..], ColorWish::Auto),
            (
                &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")],
                ColorWish::Never,
            ),
            (
                &[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")],
                ColorWish::Always,
            ),
            (&[("CLICOLOR_FORCE", "0")], ColorWish::Auto),
            (&[("TERM", "dumb")], ColorWish::Never),
        ] {
            assert_eq!(environment(variables).color, wish, "{variables:?}");
        }
    }
}
