//! What an editor may set: defaults, meaning and checks. The VS Code schema is compared with [`schema`].

use std::path::Path;

use nanochat_engine::kv::session::MOST_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The editor's settings, sent as `initializationOptions` and by `workspace/didChangeConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Most lines of one suggestion, within 1..=64.
    pub max_lines: usize,
    /// Most tokens generated for one suggestion, within 1..=512.
    pub max_tokens: usize,
    /// Per cent: a less probable suggestion does not appear while typing, only where it is asked for. Within 0..=100.
    pub min_confidence: usize,
    /// Whether cargo may be run here: it executes what the workspace configures.
    pub trusted: bool,
    /// Whether the memory also holds the sources of locked dependencies and of the standard library.
    pub dependencies: bool,
    /// Threads that compute; 0 is one per core. At most 256.
    pub threads: usize,
    /// Megabytes that what was computed of the latest prompts may take, within 1..=4096.
    pub cache_megabytes: usize,
    /// The data directory, in place of the platform's. An absolute path; a leading `~/` is expanded when it is set.
    pub data_dir: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_lines: 1,
            max_tokens: 48,
            min_confidence: 10,
            trusted: false,
            dependencies: true,
            threads: 0,
            cache_megabytes: MOST_BYTES >> 20,
            data_dir: None,
        }
    }
}

/// One line of the schema.
struct Setting {
    key: &'static str,
    kind: &'static str,
    /// Smallest and largest number.
    within: Option<(usize, usize)>,
    doc: &'static str,
}

const SETTINGS: [Setting; 8] = [
    Setting { key: "maxLines", kind: "integer", within: Some((1, 64)), doc: "Most lines of one suggestion." },
    Setting {
        key: "maxTokens",
        kind: "integer",
        within: Some((1, 512)),
        doc: "Most tokens generated for one suggestion.",
    },
    Setting {
        key: "minConfidence",
        kind: "integer",
        within: Some((0, 100)),
        doc: "Per cent: a suggestion that is right less often than this does not appear while typing, only where it is \
              asked for.",
    },
    Setting {
        key: "trusted",
        kind: "boolean",
        within: None,
        doc: "Whether `cargo metadata` may be run in this workspace: cargo executes what the workspace configures. \
              Otherwise Cargo.toml, Cargo.lock and the registry folders are read directly.",
    },
    Setting {
        key: "dependencies",
        kind: "boolean",
        within: None,
        doc: "Whether the memory also holds the sources of locked dependencies and of the standard library. They are \
              indexed in the background and kept in the user's cache, for all workspaces.",
    },
    Setting {
        key: "threads",
        kind: "integer",
        within: Some((0, 256)),
        doc: "Threads that compute; 0 is one per core.",
    },
    Setting {
        key: "cacheMegabytes",
        kind: "integer",
        within: Some((1, 4096)),
        doc: "Megabytes that what was computed of the latest prompts may take, so that going back to a file is fast.",
    },
    Setting {
        key: "dataDir",
        kind: "string",
        within: None,
        doc: "The data directory that holds keys and checkpoints, in place of the platform's.",
    },
];

/// The settings as JSON Schema properties: `{key: {type, default, description, minimum, maximum}}`.
pub fn schema() -> Value {
    let defaults = json!(Settings::default());
    let properties = SETTINGS.iter().map(|setting| {
        let mut property =
            json!({ "type": setting.kind, "default": defaults[setting.key], "description": setting.doc });
        if setting.key == "dataDir" {
            property["type"] = json!(["string", "null"]);
        }
        if let Some((least, most)) = setting.within {
            property["minimum"] = json!(least);
            property["maximum"] = json!(most);
        }
        (setting.key.to_owned(), property)
    });
    Value::Object(properties.collect())
}

impl Settings {
    /// These settings with others on top, bare or under a `nanochat` key; `null` is a setting's default. What cannot
    /// be used changes nothing and is named in the list of complaints.
    pub fn updated(&self, value: &Value) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        let value = value.get("nanochat").unwrap_or(value);
        let given = match value {
            Value::Null => return (self.clone(), complaints),
            Value::Object(given) => given,
            _ => return (self.clone(), vec!["the settings are not an object; they change nothing".to_owned()]),
        };
        let mut accepted = json!(self);
        let defaults = json!(Self::default());
        for (key, value) in given {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                complaints.push(format!("setting `{key}` is not known; it is ignored"));
                continue;
            };
            if value.is_null() {
                accepted[key] = defaults[key].clone();
                continue;
            }
            let mut candidate = accepted.clone();
            candidate[key] = value.clone();
            if let ("dataDir", Some(folder)) = (key.as_str(), value.as_str()) {
                let Some(folder) = absolute(folder) else {
                    complaints
                        .push(format!("setting `{key}` must be an absolute path or begin with ~/; it is ignored"));
                    continue;
                };
                candidate[key] = json!(folder);
            }
            let in_range = setting.within.is_none_or(|(least, most)| {
                value.as_u64().is_some_and(|value| (least as u64..=most as u64).contains(&value))
            });
            if in_range && serde_json::from_value::<Self>(candidate.clone()).is_ok() {
                accepted = candidate;
            } else {
                let range = setting.within.map(|(least, most)| format!(" within {least}..={most}")).unwrap_or_default();
                complaints.push(format!("setting `{key}` must be of type {}{range}; it is ignored", setting.kind));
            }
        }
        let settings = serde_json::from_value(accepted).expect("each accepted value was tried");
        (settings, complaints)
    }
}

/// A folder named from the root or from the user's own; the server's working directory is nobody's choice.
fn absolute(folder: &str) -> Option<String> {
    let folder = match folder.strip_prefix("~/") {
        Some(inside) => std::env::home_dir()?.join(inside).into_os_string().into_string().ok()?,
        None => folder.to_owned(),
    };
    Path::new(&folder).is_absolute().then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_line_in_the_schema() {
        let fields = json!(Settings::default());
        let fields: Vec<&String> = fields.as_object().expect("a struct is an object").keys().collect();
        let schema = schema();
        let keys: Vec<&String> = schema.as_object().expect("properties").keys().collect();
        assert_eq!(fields, keys);
        assert_eq!(schema["maxLines"]["default"], json!(1));
    }

    #[test]
    fn what_cannot_be_used_changes_nothing_and_is_named() {
        let (settings, complaints) = Settings::default().updated(&json!({
            "maxLines": 3, "maxTokens": 0, "trusted": "yes", "colour": "blue"
        }));
        assert_eq!(settings, Settings { max_lines: 3, ..Settings::default() });
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(complaints.iter().any(|complaint| complaint.contains("`colour`")));
        assert_eq!(settings.updated(&json!({"nanochat": {"maxTokens": 9}})).0.max_tokens, 9);
        assert_eq!(settings.updated(&Value::Null), (settings.clone(), vec![]));
        assert_eq!(settings.updated(&json!([1])).1.len(), 1);
    }

    #[test]
    fn null_is_the_default() {
        let given = json!({"threads": 2, "dataDir": "/data", "trusted": true});
        let (settings, complaints) = Settings::default().updated(&given);
        assert_eq!((settings.threads, settings.data_dir.as_deref(), complaints.len()), (2, Some("/data"), 0));
        let cleared = settings.updated(&json!({"threads": null, "dataDir": null}));
        assert_eq!(cleared, (Settings { trusted: true, ..Settings::default() }, vec![]));
    }

    #[test]
    fn a_data_directory_is_absolute_or_in_the_home_folder() {
        let settings = Settings { data_dir: Some("/data".to_owned()), ..Settings::default() };
        for folder in ["", "data", "./data", "~", "~other/data"] {
            let (updated, complaints) = settings.updated(&json!({"dataDir": folder}));
            assert_eq!(updated, settings, "{folder}");
            assert!(complaints[0].contains("absolute"), "{complaints:?}");
        }
        let home = std::env::home_dir().expect("tests have a home folder");
        let (updated, complaints) = settings.updated(&json!({"dataDir": "~/nano chat"}));
        assert_eq!(updated.data_dir.map(std::path::PathBuf::from), Some(home.join("nano chat")));
        assert_eq!(complaints, Vec::<String>::new());
    }
}
