use std::collections::{HashMap, HashSet};

use toml::Value;
use ureq::http::Uri;

use crate::infer::manifest::table::{Mistakes, Table};
use crate::infer::{Error, Manifest, Mistake, compare_versions, matches_name};

const EMBEDDED: &str = include_str!("../../../../models/registry.toml");
/// Beside the manifest of a model whose classes come from a shared list.
pub(super) const CLASSES_FILE: &str = "classes.txt";

/// Models that can be fetched, each with where it is, what it has to be, and the manifest that it gets.
#[derive(Debug)]
pub(super) struct Registry {
    entries: Vec<Entry>,
}

/// A model that can be fetched.
#[derive(Debug)]
pub(super) struct Entry {
    /// What [`Entry::text`] says.
    pub(super) manifest: Manifest,
    /// `manifest.toml` as it is written.
    pub(super) text: String,
    /// `classes.txt` as it is written, where the manifest names one.
    pub(super) classes: Option<String>,
    /// Who made the model and answers for its licence.
    pub(super) publisher: String,
    /// Where the file is.
    pub(super) url: Uri,
    /// Its size.
    pub(super) bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub(super) sha256: String,
}

impl Registry {
    /// The registry that is part of the program.
    ///
    /// # Errors
    /// None in a good build.
    pub(super) fn embedded() -> Result<Self, Vec<Mistake>> {
        Self::parse(EMBEDDED)
    }

    /// # Errors
    /// All mistakes, each with its key.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let mistakes = Mistakes::default();
        let entries = Table::parse(text, &mistakes).map(|root| entries(root, &mistakes)).unwrap_or_default();
        let mistakes = mistakes.into_inner();
        if mistakes.is_empty() { Ok(Self { entries }) } else { Err(mistakes) }
    }

    /// By name, then version.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The model `name@version`, or the newest version of `name`.
    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().rfind(|entry| matches_name(&entry.manifest, name))
    }
}

impl Entry {
    pub(super) fn host(&self) -> &str {
        self.url.host().unwrap_or_default()
    }
}

fn entries(mut root: Table<'_>, mistakes: &Mistakes) -> Vec<Entry> {
    let lists = class_lists(&mut root);
    let mut entries = Vec::new();
    let mut ids = HashSet::new();
    if !root.has("models") {
        root.mistake("models", "is missing: a list of tables is needed");
    }
    for table in root.tables("models") {
        let path = table.path().to_owned();
        let Some(entry) = entry(table, &lists, mistakes) else { continue };
        if !ids.insert(entry.manifest.id()) {
            mistakes.add(format!("{path}.name"), format!("{} is there twice", entry.manifest.id()));
        }
        entries.push(entry);
    }
    root.finish();
    entries.sort_by(|a, b| {
        let by_name = a.manifest.name.cmp(&b.manifest.name);
        by_name.then_with(|| compare_versions(&a.manifest.version, &b.manifest.version))
    });
    entries
}

/// Lists of class names, by the names that entries call them.
fn class_lists(root: &mut Table<'_>) -> HashMap<String, Vec<Value>> {
    let lists = match root.take("classes") {
        None => return HashMap::new(),
        Some(Value::Table(lists)) => lists,
        Some(other) => {
            root.wrong::<()>("classes", &other, "a table is needed");
            return HashMap::new();
        }
    };
    let mut found = HashMap::new();
    for (name, list) in lists {
        match list {
            Value::Array(names) if !names.is_empty() && names.iter().all(|name| name.as_str().is_some_and(is_line)) => {
                found.insert(name, names);
            }
            other => {
                root.wrong::<()>(
                    &format!("classes.{name}"),
                    &other,
                    "a list of strings that is not empty, each of one line, is needed",
                );
            }
        }
    }
    found
}

fn entry(mut table: Table<'_>, lists: &HashMap<String, Vec<Value>>, mistakes: &Mistakes) -> Option<Entry> {
    let mut manifest = match table.take("manifest") {
        Some(Value::Table(manifest)) => manifest,
        Some(other) => table.wrong("manifest", &other, "a table is needed").unwrap_or_default(),
        None => toml::Table::new(),
    };
    for key in ["name", "version", "licence", "file", "classes", "variants"] {
        if manifest.remove(key).is_some() {
            let why = if key == "variants" { "one file a model is fetched" } else { "the entry itself says it" };
            table.mistake(&format!("manifest.{key}"), format!("is not legal here: {why}"));
        }
    }
    for key in ["name", "version", "licence"] {
        if let Some(value) = table.take(key) {
            manifest.insert(key.to_owned(), value);
        }
    }
    if !table.has("sha256") {
        table.mistake("sha256", "is missing: 64 hexadecimal digits are needed");
    }
    if let Some(sha256) = table.take("sha256") {
        manifest.insert("file".to_owned(), single("sha256", sha256));
    }
    let classes = match table.take("classes") {
        // The shared list is written beside the manifest.
        Some(Value::String(name)) => {
            if !lists.contains_key(&name) {
                let mut known = lists.keys().map(String::as_str).collect::<Vec<_>>();
                known.sort_unstable();
                table
                    .mistake("classes", format!("\"{name}\" is no list of [classes]; there are: {}", known.join(", ")));
            }
            manifest.insert("classes".to_owned(), single("file", Value::from(CLASSES_FILE)));
            let names = lists.get(&name).into_iter().flatten().filter_map(Value::as_str);
            Some(names.flat_map(|name| [name, "\n"]).collect::<String>())
        }
        Some(names) => {
            manifest.insert("classes".to_owned(), single("names", names));
            None
        }
        None => {
            table.mistake("classes", "is missing: a list of class names, or the name of a list of [classes]");
            manifest.insert("classes".to_owned(), single("names", Value::from(vec!["missing"])));
            None
        }
    };
    let publisher = table.required_string("publisher").filter(|text| is_clean(&table, "publisher", text));
    let homepage = table.required_string("homepage").and_then(|text| address(&table, "homepage", &text));
    let url = table.required_string("url").and_then(|text| address(&table, "url", &text));
    if !table.has("bytes") {
        table.mistake("bytes", "is missing: the size of the file is needed");
    }
    let bytes = table.integer("bytes", 1..=u32::MAX);
    let path = table.path().to_owned();
    table.finish();

    // What is written is what was read back from it.
    let body = toml::to_string(&manifest).unwrap_or_default();
    let read_classes = |_: &str| Ok(classes.clone().unwrap_or_default());
    let manifest = match Manifest::parse(&body, read_classes) {
        Ok(manifest) => Some(manifest),
        Err(Error::Manifest { mistakes: found }) => {
            found.into_iter().for_each(|mistake| mistakes.add(entry_key(&path, &mistake.key), mistake.problem));
            None
        }
        Err(error) => {
            mistakes.add(format!("{path}.manifest"), error.to_string());
            None
        }
    };
    let (manifest, publisher, homepage, url, bytes) = (manifest?, publisher?, homepage?, url?, bytes?);
    let sha256 = manifest.file.sha256.clone()?;
    let text = format!("# {} by {publisher}, {homepage}\n# Fetched from {url}\n{body}", manifest.id());
    Some(Entry { manifest, text, classes, publisher, url, bytes: u64::from(bytes), sha256 })
}

fn single(key: &str, value: Value) -> Value {
    Value::Table(toml::Table::from_iter([(key.to_owned(), value)]))
}

/// The key in the registry of what the manifest has at `key`.
fn entry_key(path: &str, key: &str) -> String {
    match key {
        "name" | "version" | "licence" => format!("{path}.{key}"),
        "file.sha256" => format!("{path}.sha256"),
        "classes.names" | "classes.file" => format!("{path}.classes"),
        key => format!("{path}.manifest.{key}"),
    }
}

fn is_line(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn is_clean(table: &Table<'_>, key: &str, text: &str) -> bool {
    let clean = is_line(text);
    if !clean {
        table.mistake(key, format!("{text:?} is not legal: one line is needed"));
    }
    clean
}

fn address(table: &Table<'_>, key: &str, text: &str) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        scheme && authority && uri.host().is_some_and(|host| !host.is_empty())
    });
    if uri.is_none() {
        table.mistake(key, format!("{text:?} is not legal: an https or http address without a user is needed"));
    }
    uri
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::path::PathBuf;

    use sha2::{Digest, Sha256};

    use super::*;

    const GOOD: &str = r#"
[classes]
pets = ["cat", "hot dog"]
[[models]]
name = "a"
version = "2"
licence = "MIT"
publisher = "Someone"
homepage = "https://example.com"
url = "https://example.com/a.onnx?raw=1"
bytes = 12
sha256 = "695E750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14"
classes = "pets"
[models.manifest.input]
size = [64, 32]
[models.manifest.output]
decoder = "yolox"
"#;

    fn mistakes(text: &str) -> Vec<String> {
        Registry::parse(text).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    /// The entry with its manifest as it will be read from the disk.
    fn reread(entry: &Entry) -> Manifest {
        Manifest::parse(&entry.text, |file| {
            assert_eq!(file, CLASSES_FILE);
            Ok(entry.classes.clone().unwrap())
        })
        .unwrap()
    }

    #[test]
    fn every_embedded_entry_has_a_manifest_that_is_accepted() {
        let registry = Registry::embedded().unwrap();
        let ids = registry.entries().iter().map(|entry| entry.manifest.id()).collect::<Vec<_>>();
        assert_eq!(ids, ["ultraface@1", "yolox-nano@0.1.1", "yolox-s@0.1.1", "yolox-tiny@0.1.1", "yunet@1"]);
        for entry in registry.entries() {
            let manifest = reread(entry);
            assert_eq!(manifest, entry.manifest);
            assert_eq!(manifest.file.sha256.as_deref(), Some(&*entry.sha256));
            assert_eq!(entry.url.scheme_str(), Some("https"), "{}", manifest.id());
            assert!(registry.find(&manifest.id()).is_some() && registry.find(&manifest.name).is_some());
            assert!(entry.text.contains(&entry.url.to_string()) && entry.text.contains("github.com"));
        }
        assert_eq!(registry.find("yolox-s").unwrap().manifest.input.size, [640, 640]);
        assert!(registry.find("yolox").is_none() && registry.find("yunet@2").is_none());
    }

    #[test]
    fn embedded_entries_say_what_the_test_manifests_say() {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models"));
        let registry = Registry::embedded().unwrap();
        for (name, reference, size) in [
            ("yunet", "yunet", [320, 320]),
            ("ultraface", "ultraface", [320, 240]),
            ("yolox-nano", "yolox-nano", [416, 416]),
            ("yolox-tiny", "yolox-nano", [416, 416]),
            ("yolox-s", "yolox-nano", [640, 640]),
        ] {
            let folder = folder.join(reference).join("1");
            let text = std::fs::read_to_string(folder.join("manifest.toml")).unwrap();
            let mut expected =
                Manifest::parse(&text, |file| Ok(std::fs::read_to_string(folder.join(file)).unwrap())).unwrap();
            let found = reread(registry.find(name).unwrap());
            name.clone_into(&mut expected.name);
            expected.version.clone_from(&found.version);
            expected.file.clone_from(&found.file);
            expected.input.size = size;
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn embedded_entries_of_files_that_are_at_hand_have_their_size_and_hash() {
        let root = std::env::var_os("SACCADE_TEST_ASSETS").map(PathBuf::from);
        let root = root.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")));
        let registry = Registry::embedded().unwrap();
        for (name, file) in [("yunet", "yunet_n_320_320.onnx"), ("ultraface", "ultraface_RFB_320.onnx")] {
            let path = root.join("models").join(file);
            if !path.exists() {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is not there", path.display());
                println!("skipped {name}: {} is not there", path.display());
                continue;
            }
            let bytes = std::fs::read(path).unwrap();
            let entry = registry.find(name).unwrap();
            assert_eq!(bytes.len() as u64, entry.bytes, "{name}");
            let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            assert_eq!(hash, entry.sha256, "{name}");
        }
    }

    #[test]
    fn an_entry_becomes_a_manifest_with_its_classes_beside_it() {
        let registry = Registry::parse(GOOD).unwrap();
        let entry = registry.find("a").unwrap();
        assert_eq!(entry.classes.as_deref(), Some("cat\nhot dog\n"));
        assert_eq!((entry.host(), entry.bytes, &entry.sha256[..4]), ("example.com", 12, "695e"));
        assert!(entry.text.starts_with("# a@2 by Someone, https://example.com/\n# Fetched from https://example.com/a"));
        let manifest = reread(entry);
        assert_eq!((manifest.id().as_str(), manifest.licence.as_str(), manifest.classes.len()), ("a@2", "MIT", 2));
        let listed = GOOD.replace("\"pets\"\n", "[\"cat\"]\n");
        assert_eq!(Registry::parse(&listed).unwrap().entries()[0].classes, None);
    }

    #[test]
    fn a_name_means_its_newest_version() {
        let (lists, entry) = GOOD.split_at(GOOD.find("[[models]]").unwrap());
        let versions =
            ["10", "2", "1.9"].map(|version| entry.replace("version = \"2\"", &format!("version = \"{version}\"")));
        let registry = Registry::parse(&format!("{lists}{}", versions.concat())).unwrap();
        assert_eq!(registry.find("a").unwrap().manifest.version, "10");
        assert_eq!(registry.find("a@1.9").unwrap().manifest.version, "1.9");
    }

    #[test]
    fn each_mistake_names_its_key_and_what_is_legal() {
        for (from, to, key, says) in [
            ("name = \"a\"", "name = \"../x\"", "`models[0].name`", "a-z"),
            ("name = \"a\"", "name = \"a/b\"", "`models[0].name`", "a-z"),
            ("name = \"a\"", "", "`models[0].name`", "missing"),
            ("version = \"2\"", "version = \"..\"", "`models[0].version`", "a-z"),
            ("version = \"2\"", "version = 2", "`models[0].version`", "string"),
            ("licence = \"MIT\"", "", "`models[0].licence`", "missing"),
            ("publisher = \"Someone\"", "", "`models[0].publisher`", "missing"),
            ("publisher = \"Someone\"", "publisher = \"a\\nb\"", "`models[0].publisher`", "one line"),
            ("homepage = \"https://example.com\"", "", "`models[0].homepage`", "missing"),
            ("url = \"https", "url = \"file", "`models[0].url`", "https or http"),
            ("url = \"https://", "url = \"https://me:secret@", "`models[0].url`", "without a user"),
            ("url = \"https://example.com/a.onnx?raw=1\"", "url = \"a.onnx\"", "`models[0].url`", "https or http"),
            ("bytes = 12", "bytes = 0", "`models[0].bytes`", "from 1"),
            ("bytes = 12", "", "`models[0].bytes`", "missing"),
            ("sha256 = \"695E", "sha256 = \"xyz", "`models[0].sha256`", "64 hexadecimal"),
            ("sha256 = \"695E", "md5 = \"", "`models[0].sha256`", "missing"),
            ("sha256 = \"695E", "md5 = \"", "`models[0].md5`", "unknown key"),
            ("classes = \"pets\"", "classes = \"birds\"", "`models[0].classes`", "there are: pets"),
            ("classes = \"pets\"", "classes = []", "`models[0].classes`", "list of strings"),
            ("classes = \"pets\"", "", "`models[0].classes`", "missing"),
            ("[\"cat\", \"hot dog\"]", "[\"cat\", \"cat\"]", "`models[0].classes`", "there twice"),
            ("[\"cat\", \"hot dog\"]", "[\"cat\\ndog\"]", "`classes.pets`", "one line"),
            ("size = [64, 32]", "size = [64]", "`models[0].manifest.input.size`", "from 8 to 4096"),
            ("size = [64, 32]", "sice = [64, 32]", "`models[0].manifest.input.sice`", "unknown key"),
            ("[models.manifest.output]", "[models.manifest.outputs]", "`models[0].manifest.outputs`", "unknown key"),
            (
                "[models.manifest.input]",
                "[models.manifest]\nname = \"b\"\n[models.manifest.input]",
                "`models[0].manifest.name`",
                "the entry itself",
            ),
            (
                "[models.manifest.input]",
                "[models.manifest.variants.int8]\n[models.manifest.input]",
                "`models[0].manifest.variants`",
                "one file a model",
            ),
            ("[[models]]", "extra = 1\n[[models]]", "`classes.extra`", "a list of strings"),
            ("[classes]", "extra = 1\n[classes]", "`extra`", "unknown key"),
            ("[[models]]", "[[modules]]", "`models`", "a list of tables"),
            ("bytes = 12", "bytes = ", "`(toml)`", "line 11"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let found = mistakes(&GOOD.replacen(from, to, 1));
            let named = found.iter().any(|mistake| mistake.starts_with(key) && mistake.contains(says));
            assert!(named, "{to}: {found:?}");
        }
    }

    #[test]
    fn all_mistakes_come_at_once_and_doubles_are_told() {
        let found =
            mistakes(&GOOD.replace("bytes = 12", "bytes = -1").replace("https://", "ftp://").replace("yolox", "x"));
        assert_eq!(found.len(), 4, "{found:?}");
        let entry = &GOOD[GOOD.find("[[models]]").unwrap()..];
        assert_eq!(mistakes(&format!("{GOOD}{entry}")), ["`models[1].name`: a@2 is there twice"]);
    }
}
