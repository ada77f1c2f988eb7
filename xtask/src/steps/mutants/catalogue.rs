//! What `mutants.toml` of a crate says.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::project::Project;
use crate::step::Stop;

/// The directories of the crates that are mutated. Paths in a crate's catalogue start there.
pub(super) const DIRECTORIES: [&str; 5] = ["ring", "shm", "table", "signal", "transports"];
pub(super) const FILE: &str = "mutants.toml";

/// The mutations of one crate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalogue {
    /// The crate's.
    #[serde(skip)]
    pub(super) directory: &'static str,
    #[serde(rename = "mutant")]
    pub(super) mutants: Vec<Mutant>,
}

/// One change of the code, and who notices it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    pub(super) id: String,
    /// The file that is changed.
    pub(super) file: String,
    /// The text that is replaced; the file has it once.
    pub(super) find: String,
    pub(super) replace: String,
    /// The tests that fail then, each of them.
    pub(super) tests: Vec<TestName>,
    /// What the changed code is there for.
    pub(super) why: String,
    /// A test may also run without an end.
    #[serde(default)]
    pub(super) hangs: bool,
}

impl Catalogue {
    /// Those of all crates. A mutation's id names it among all of them.
    pub(super) fn read_all(project: &Project) -> Result<Vec<Self>, Stop> {
        let catalogues = DIRECTORIES
            .into_iter()
            .map(|directory| Self::read(project, directory))
            .collect::<Result<Vec<_>, _>>()?;
        let mut ids = BTreeSet::new();
        for mutant in catalogues.iter().flat_map(|catalogue| &catalogue.mutants) {
            if !ids.insert(&mutant.id) {
                return Err(Stop::Failed(format!(
                    "mutations of two crates are called {}",
                    mutant.id
                )));
            }
        }
        Ok(catalogues)
    }

    fn read(project: &Project, directory: &'static str) -> Result<Self, Stop> {
        let path = project.root.join(directory).join(FILE);
        let text = fs::read_to_string(&path)
            .map_err(|error| Stop::Failed(format!("cannot read {}: {error}", path.display())))?;
        let catalogue =
            Self::parse(&text).map_err(|why| Stop::Failed(format!("{directory}/{FILE}: {why}")))?;
        Ok(Self {
            directory,
            ..catalogue
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let catalogue: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut ids = BTreeSet::new();
        for mutant in &catalogue.mutants {
            let id = &mutant.id;
            let is_word =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if id.is_empty() || !id.bytes().all(is_word) {
                return Err(format!(
                    "{id:?} is not an id of small letters, digits and hyphens"
                ));
            }
            if !ids.insert(id) {
                return Err(format!("two mutations are called {id}"));
            }
            if mutant.tests.is_empty() {
                return Err(format!("{id} names no test"));
            }
        }
        Ok(catalogue)
    }
}

impl Mutant {
    /// The file's text with the change made.
    ///
    /// # Errors
    ///
    /// What is wrong if the text to replace is not there, or not once: the code has moved on, and the mutation has not.
    pub(super) fn apply(&self, text: &str) -> Result<String, String> {
        if self.find == self.replace {
            return Err(format!("{} changes nothing", self.id));
        }
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            count => Err(format!(
                "{}: {} has the text to replace {count} times, not once",
                self.id, self.file
            )),
        }
    }
}

/// A test, as `tests/FILE.rs::NAME`; beside the code as `src/FILE.rs::NAME`, in that file's module `tests` or in a file of
/// it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TestName {
    file: String,
    function: String,
}

/// A program that cargo builds of tests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Binary {
    /// Of the tests beside the code.
    Library,
    /// Of a file in `tests`.
    Integration(String),
}

impl TestName {
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn function(&self) -> &str {
        &self.function
    }

    pub(super) fn binary(&self) -> Binary {
        match self.file.strip_prefix("tests/") {
            // `tests/NAME.rs`, or a file in `tests/NAME`.
            Some(file) => {
                let (name, _) = file.split_once('/').unwrap_or((file, ""));
                Binary::Integration(name.trim_end_matches(".rs").to_owned())
            }
            None => Binary::Library,
        }
    }

    /// What the test is called in its program.
    pub(super) fn path(&self) -> String {
        let (directory, file) = match self.file.strip_prefix("src/") {
            Some(file) => (None, file),
            None => {
                let file = self.file.trim_start_matches("tests/");
                let (directory, file) = file.split_once('/').unwrap_or((file, ""));
                (Some(directory), file)
            }
        };
        let modules = Path::new(file).with_extension("");
        let mut path: Vec<_> = modules.iter().map(|name| name.to_string_lossy()).collect();
        if let Some("mod" | "lib" | "main" | "tests") = path.last().map(|name| name.as_ref()) {
            path.pop();
        }
        // A file in a directory `tests` is in that module already.
        if directory.is_none() && !path.iter().any(|module| module == "tests") {
            path.push("tests".into());
        }
        path.push(self.function.as_str().into());
        path.join("::")
    }
}

impl TryFrom<String> for TestName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let parts = name.rsplit_once("::").filter(|(file, _)| {
            file.ends_with(".rs") && (file.starts_with("src/") || file.starts_with("tests/"))
        });
        let (file, function) = parts.ok_or_else(|| {
            format!("{name:?} is not a test as `tests/FILE.rs::NAME` or `src/FILE.rs::NAME`")
        })?;
        Ok(Self {
            file: file.to_owned(),
            function: function.to_owned(),
        })
    }
}

impl fmt::Display for TestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.file, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(find: &str, test: &str) -> Result<Catalogue, String> {
        Catalogue::parse(&format!(
            "[[mutant]]\nid = \"a-1\"\nfile = \"src/x.rs\"\nfind = \"{find}\"\nreplace = \"new\"\n\
             tests = [\"{test}\"]\nwhy = \"\"\n"
        ))
    }

    #[test]
    fn a_mutation_is_applied_where_its_text_occurs_once() {
        let catalogue = parse("old", "tests/x.rs::fails").unwrap();
        let mutant = &catalogue.mutants[0];
        assert_eq!(mutant.apply("an old one").unwrap(), "an new one");
        for stale in ["a young one", "an old, old one"] {
            assert!(mutant.apply(stale).unwrap_err().contains("not once"));
        }
        let idle = parse("new", "tests/x.rs::fails").unwrap();
        assert!(idle.mutants[0].apply("new").is_err());
    }

    #[test]
    fn a_test_is_found_by_its_file_and_its_name() {
        let test = |name: &str| {
            parse("old", name)
                .unwrap()
                .mutants
                .remove(0)
                .tests
                .remove(0)
        };
        let integration = test("tests/x.rs::fails");
        assert_eq!(integration.binary(), Binary::Integration("x".to_owned()));
        assert_eq!(integration.path(), "fails");
        let in_directory = test("tests/x/main.rs::fails");
        assert_eq!(in_directory.binary(), integration.binary());
        assert_eq!(in_directory.path(), "fails");
        assert_eq!(test("tests/x/y.rs::fails").path(), "y::fails");
        for (name, path) in [
            ("src/lib.rs::fails", "tests::fails"),
            ("src/a/b.rs::fails", "a::b::tests::fails"),
            ("src/a/mod.rs::fails", "a::tests::fails"),
            ("src/a/tests.rs::fails", "a::tests::fails"),
            ("src/a/tests/b.rs::fails", "a::tests::b::fails"),
            ("src/a/tests/mod.rs::fails", "a::tests::fails"),
        ] {
            assert_eq!(test(name).binary(), Binary::Library);
            assert_eq!(test(name).path(), path);
            assert_eq!(test(name).to_string(), name);
        }
        for wrong in [
            "x::fails",
            "tests/x::fails",
            "benches/x.rs::fails",
            "tests/x.rs",
        ] {
            assert!(parse("old", wrong).is_err(), "{wrong}");
        }
    }
}
