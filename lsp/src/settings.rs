//! What an editor may set: defaults, meaning and checks. A test compares VS Code's `package.json` with [`schema`].
//!
//! ```
//! use nanochat_lsp::settings::Settings;
//! use serde_json::json;
//!
//! let given = json!({ "nanochat": { "maxLines": 3, "threads": "all" } });
//! let (settings, complaints) = Settings::default().updated(&given);
//! assert_eq!(settings, Settings { max_lines: 3, ..Settings::default() });
//! assert_eq!(complaints, ["setting `threads` must be of type integer within 0..=256; it is ignored"]);
//! ```

use std::path::Path;

use nanochat_engine::kv::session::MOST_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The editor's settings, sent as `initializationOptions` and by `workspace/didChangeConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Maximum number of lines in a suggestion, within 1..=64.
    pub max_lines: usize,
    /// Maximum number of tokens generated for a suggestion, within 1..=512.
    pub max_tokens: usize,
    /// Minimum confidence, in per cent within 0..=100, to show a suggestion while typing. Explicitly requested
    /// suggestions always appear.
    pub min_confidence: usize,
    /// Whether cargo may be run in this workspace: it executes what the workspace configures.
    pub trusted: bool,
    /// Whether the memory also covers the sources of locked dependencies and of the standard library.
    pub dependencies: bool,
    /// Number of compute threads, at most 256; 0 is one per core.
    pub threads: usize,
    /// Size limit, in megabytes within 1..=4096, of the cache of recent prompts.
    pub cache_megabytes: usize,
    /// The data directory, instead of the platform's: an absolute path. A leading `~/` is expanded when it is set.
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

/// One property of the schema.
struct Setting {
    key: &'static str,
    kind: &'static str,
    /// The smallest and the largest allowed number.
    within: Option<(usize, usize)>,
    doc: &'static str,
}

const SETTINGS: [Setting; 8] = [
    Setting {
        key: "maxLines",
        kind: "integer",
        within: Some((1, 64)),
        doc: "Maximum number of lines in a suggestion.",
    },
    Setting {
        key: "maxTokens",
        kind: "integer",
        within: Some((1, 512)),
        doc: "Maximum number of tokens generated for a suggestion.",
    },
    Setting {
        key: "minConfidence",
        kind: "integer",
        within: Some((0, 100)),
        doc: "Minimum confidence, in per cent, to show a suggestion while typing. Explicitly requested suggestions \
              always appear.",
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
        doc: "Whether the memory also covers the sources of locked dependencies and of the standard library. They are \
              indexed in the background and stored in the user's cache, for all workspaces.",
    },
    Setting {
        key: "threads",
        kind: "integer",
        within: Some((0, 256)),
        doc: "Number of compute threads; 0 is one per core.",
    },
    Setting {
        key: "cacheMegabytes",
        kind: "integer",
        within: Some((1, 4096)),
        doc: "Size limit, in megabytes, of the cache of recent prompts, which makes returning to a file fast.",
    },
    Setting {
        key: "dataDir",
        kind: "string",
        within: None,
        doc: "The data directory with keys and checkpoints, instead of the platform's.",
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
    /// These settings with those in `value` applied, which may be under a `nanochat` key; `null` resets a setting to
    /// its default. A key or value that cannot be used changes nothing and is named in the returned complaints.
    pub fn updated(&self, value: &Value) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        let value = value.get("nanochat").unwrap_or(value);
        let given = match value {
            Value::Null => return (self.clone(), complaints),
            Value::Object(given) => given,
            _ => return (self.clone(), vec!["the settings are not an object; they are ignored".to_owned()]),
        };
        let mut accepted = json!(self);
        let defaults = json!(Self::default());
        for (key, value) in given {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                complaints.push(format!("unknown setting `{key}`; it is ignored"));
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
                        .push(format!("setting `{key}` must be an absolute path or start with ~/; it is ignored"));
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
        let settings = serde_json::from_value(accepted).expect("each accepted value was parsed above");
        (settings, complaints)
    }
}

/// An absolute path, with a leading `~/` expanded. Relative paths are refused: no user chooses the server's working
/// directory.
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
    fn every_field_is_in_the_schema() {
        let fields = json!(Settings::default());
        let fields: Vec<&String> = fields.as_object().expect("a struct is an object").keys().collect();
        let schema = schema();
        let keys: Vec<&String> = schema.as_object().expect("properties").keys().collect();
        assert_eq!(fields, keys);
        assert_eq!(schema["maxLines"]["default"], json!(1));
    }

    #[test]
    fn invalid_settings_change_nothing_and_are_named() {
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
    fn null_resets_a_setting_to_its_default() {
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
