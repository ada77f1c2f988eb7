//! Packages of any Debian release, from the mirror that this machine uses anyway: apt with lists, a state and a cache
//! of its own, so that the machine's are left alone.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::{create, write};
use crate::command::Command;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Suites that are looked at together.
pub(super) struct Suites {
    names: &'static [&'static str],
    /// The one whose versions are preferred.
    target: &'static str,
}

pub(super) const BOOKWORM: Suites = Suites {
    names: &["bookworm"],
    target: "bookworm",
};

pub(super) const TRIXIE: Suites = Suites {
    names: &["trixie", "trixie-backports"],
    target: "trixie-backports",
};

/// One package in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

impl Package {
    /// From the name of its file, in which a colon is written as `%3a`.
    fn from_file(file: &str) -> Option<Self> {
        let (name, rest) = file.split_once('_')?;
        let (version, _) = rest.split_once('_')?;
        Some(Self {
            name: name.to_owned(),
            version: version.replace("%3a", ":"),
        })
    }
}

/// The packages of some suites.
pub(super) struct Archive<'a> {
    project: &'a Project,
    directory: PathBuf,
    suites: &'static Suites,
}

impl<'a> Archive<'a> {
    /// Fetches the lists, unless an earlier part needed them too.
    ///
    /// # Errors
    ///
    /// [`Stop`] if this is no Debian, or the mirror does not answer.
    pub(super) fn open(
        project: &'a Project,
        below: &Path,
        suites: &'static Suites,
        tally: &mut Tally,
    ) -> Result<Self, Stop> {
        let archive = Self {
            project,
            directory: below.join("apt").join(suites.target),
            suites,
        };
        let lists = archive.directory.join("lists");
        let ready = archive.directory.join("ready");
        if ready.is_file() {
            return Ok(archive);
        }
        if !Path::new(KEYRING).is_file() {
            return Err(Stop::Skipped(format!("{KEYRING} is missing")));
        }
        let mirror = mirror(project)?;
        for directory in ["lists/partial", "cache/archives/partial", "debs"] {
            create(&archive.directory.join(directory))?;
        }
        let sources: String = suites
            .names
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        let (list, status) = (
            archive.directory.join("sources.list"),
            archive.directory.join("status"),
        );
        write(&list, &sources)?;
        write(&status, "")?;
        let settings = [
            ("Dir::Etc::sourcelist", list.display().to_string()),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State::lists", lists.display().to_string()),
            ("Dir::State::status", status.display().to_string()),
            (
                "Dir::Cache",
                archive.directory.join("cache").display().to_string(),
            ),
            ("APT::Architecture", "amd64".to_owned()),
            ("APT::Architectures", "amd64".to_owned()),
            ("APT::Sandbox::User", "root".to_owned()),
            ("APT::Default-Release", suites.target.to_owned()),
            ("APT::Install-Recommends", "false".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
        ];
        let settings: String = settings
            .iter()
            .map(|(name, value)| format!("{name} \"{value}\";\n"))
            .collect();
        write(&archive.settings(), &settings)?;
        archive
            .apt("apt-get")
            .args(["update", "--quiet=2", "--error-on=any"])
            .run(tally)?;
        write(&ready, "")?;
        Ok(archive)
    }

    /// The newest package whose name matches the first pattern that any name matches, and with it all that it depends on.
    ///
    /// # Errors
    ///
    /// [`Stop::Failed`] if there is none.
    pub(super) fn choose(&self, patterns: &[&str]) -> Result<(Package, Vec<Package>), Stop> {
        let name = patterns
            .iter()
            .find_map(|pattern| self.newest(pattern))
            .ok_or_else(|| {
                let (suites, patterns) = (self.suites.names.join(" and "), patterns.join(" or "));
                Stop::Failed(format!("no package of {suites} is named {patterns}"))
            })?;
        let name = name.as_str();
        let files = self
            .apt("apt-get")
            .args(["install", "--print-uris", "--quiet=2", "--yes", name])
            .read()
            .unwrap_or_default();
        let packages: Vec<_> = files
            .lines()
            .filter(|line| line.starts_with('\''))
            .filter_map(|line| Package::from_file(line.split_ascii_whitespace().nth(1)?))
            .collect();
        let chosen = packages
            .iter()
            .find(|package| package.name == name)
            .cloned()
            .ok_or_else(|| Stop::Failed(format!("apt does not say how to get {name}")))?;
        Ok((chosen, packages))
    }

    fn newest(&self, pattern: &str) -> Option<String> {
        let names = self
            .apt("apt-cache")
            .args(["search", "--names-only", pattern])
            .read()?;
        names
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().next())
            .max_by(|a, b| by_numbers(a, b))
            .map(str::to_owned)
    }

    /// Downloads packages and unpacks them, one over the other.
    ///
    /// # Errors
    ///
    /// [`Stop::Failed`] from apt or dpkg.
    pub(super) fn unpack(&self, packages: &[Package], to: &Path) -> Result<(), Stop> {
        let debs = self.directory.join("debs");
        create(&debs)?;
        let download = self
            .apt("apt-get")
            .within(&debs)
            .args(["download", "--quiet=2"])
            .args(packages.iter().map(|p| format!("{}={}", p.name, p.version)));
        quietly("apt-get download", download)?;
        let files = super::files(&debs)?;
        let bar = ProgressBar::new(files.len() as u64).with_style(
            ProgressStyle::with_template("{elapsed} {bar:30} {pos} of {len}: {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        for file in &files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            bar.set_message(name.into_owned());
            let unpack =
                Command::new(self.project, "dpkg-deb").args([Path::new("--extract"), file, to]);
            quietly(&format!("dpkg-deb --extract {}", file.display()), unpack)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let _ = fs::remove_dir_all(&debs);
        Ok(())
    }

    fn settings(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    fn apt(&self, program: &str) -> Command {
        Command::new(self.project, program)
            .env("APT_CONFIG", self.settings())
            .env("LC_ALL", "C")
    }
}

/// Runs a command whose output is of interest only if it fails.
fn quietly(what: &str, command: Command) -> Result<(), Stop> {
    match command.output() {
        Ok((status, _)) if status.success() => Ok(()),
        Ok((status, output)) => Err(Stop::Failed(format!("{what}: {status}: {output}"))),
        Err(error) => Err(Stop::Failed(format!("{what} cannot run: {error}"))),
    }
}

/// Where this machine's own packages of its release come from.
fn mirror(project: &Project) -> Result<String, Stop> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    if field("ID") != Some("debian") {
        return Err(Stop::Skipped("this is no Debian".to_owned()));
    }
    let codename = field("VERSION_CODENAME").unwrap_or("sid");
    // It says so also before the lists were ever fetched.
    let files = Command::new(project, "apt-get")
        .args(["update", "--print-uris", "-o", "Debug::NoLocking=true"])
        .read()
        .unwrap_or_default();
    let sites = sites(&files, codename);
    // Others also name their suites after Debian's releases; Debian's mirrors keep to one path.
    sites
        .iter()
        .find(|site| site.trim_end_matches('/').ends_with("/debian"))
        .or_else(|| sites.first())
        .map(|site| (*site).to_owned())
        .ok_or_else(|| Stop::Skipped(format!("apt knows no mirror of {codename}")))
}

/// Where a suite is, from lines such as `'http://mirror/debian/dists/bookworm/InRelease' NAME 0`.
fn sites<'a>(files: &'a str, suite: &str) -> BTreeSet<&'a str> {
    let end = format!("/dists/{suite}/InRelease");
    files
        .lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once('\''))
        .filter_map(|(file, _)| file.strip_suffix(end.as_str()))
        .collect()
}

/// Compares names in which numbers count as numbers.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_known_by_its_file() {
        let package = Package::from_file("libfdt1_1%3a1.7-2_amd64.deb").unwrap();
        assert_eq!(package.name, "libfdt1");
        assert_eq!(package.version, "1:1.7-2");
    }

    #[test]
    fn mirrors_are_those_of_the_suite() {
        let files = "'http://a/debian/dists/bookworm/InRelease' a_debian_dists_bookworm_InRelease 0 \n\
                     'http://b/debian-security/dists/bookworm-security/InRelease' b 0 \n\
                     'http://c/dists/bookworm/main/binary-amd64/Packages.xz' c 0 \n\
                     'http://d/dists/bookworm/InRelease' d 0 \n";
        let found: Vec<_> = sites(files, "bookworm").into_iter().collect();
        assert_eq!(found, ["http://a/debian", "http://d"]);
    }

    #[test]
    fn the_newest_is_found_by_its_numbers() {
        let names = ["linux-image-7.2.9+deb13", "linux-image-7.2.12+deb13"];
        assert_eq!(
            names.into_iter().max_by(|a, b| by_numbers(a, b)),
            Some("linux-image-7.2.12+deb13")
        );
    }
}
