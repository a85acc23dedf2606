//! Defaults that a user, a workspace or a package sets. The environment is read here and in `context` only.

use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;

use crate::exit::InputError;

/// What may be set outside the command line. Unknown keys are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Name or path of a training recipe; a path in a Cargo.toml is relative to it.
    pub(crate) recipe: Option<String>,
    pub(crate) seed: Option<u64>,
    pub(crate) threads: Option<usize>,
}

impl Settings {
    /// Environment > package > workspace > user. `config` need not exist.
    pub(crate) fn load(manifest: &Path, workspace_root: &Path, config: &Path) -> Result<Self, InputError> {
        let root_manifest = workspace_root.join("Cargo.toml");
        Ok(Self::from_env()?
            .or(Self::from_manifest(manifest, "package")?)
            .or(Self::from_manifest(&root_manifest, "workspace")?)
            .or(Self::from_config(config)?))
    }

    /// Environment > user, where there is no workspace.
    pub(crate) fn of_user(config: &Path) -> Result<Self, InputError> {
        Ok(Self::from_env()?.or(Self::from_config(config)?))
    }

    fn from_env() -> Result<Self, InputError> {
        Ok(Self {
            recipe: variable("NANOCHAT_RECIPE")?,
            seed: variable("NANOCHAT_SEED")?,
            threads: variable("NANOCHAT_THREADS")?,
        })
    }

    /// `[<table>.metadata.nanochat]`.
    fn from_manifest(manifest: &Path, table: &str) -> Result<Self, InputError> {
        let text = read(manifest)?;
        let bad = |error: &toml::de::Error| {
            let message = error.message();
            InputError(format!("[{table}.metadata.nanochat] in {}: {message}", manifest.display()))
        };
        let document: toml::Table = text.parse().map_err(|error| bad(&error))?;
        let section = document.get(table).and_then(|t| t.get("metadata")).and_then(|t| t.get("nanochat"));
        let mut settings: Self = match section {
            Some(section) => section.clone().try_into().map_err(|error| bad(&error))?,
            None => Self::default(),
        };
        if let Some(recipe) = &mut settings.recipe
            && recipe.ends_with(".toml")
            && let Some(folder) = manifest.parent()
        {
            *recipe = folder.join(&*recipe).to_string_lossy().into_owned();
        }
        Ok(settings)
    }

    fn from_config(config: &Path) -> Result<Self, InputError> {
        if !config.exists() {
            return Ok(Self::default());
        }
        toml::from_str(&read(config)?).map_err(|error| InputError(format!("{}: {}", config.display(), error.message())))
    }

    fn or(self, other: Self) -> Self {
        Self {
            recipe: self.recipe.or(other.recipe),
            seed: self.seed.or(other.seed),
            threads: self.threads.or(other.threads),
        }
    }
}

fn variable<T: FromStr>(name: &str) -> Result<Option<T>, InputError> {
    match std::env::var_os(name) {
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => match value.to_str().and_then(|value| value.parse().ok()) {
            Some(value) => Ok(Some(value)),
            None => Err(InputError(format!("{name} is `{}`, which is not a valid value", value.display()))),
        },
    }
}

fn read(path: &Path) -> Result<String, InputError> {
    std::fs::read_to_string(path).map_err(|error| InputError(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<Settings, InputError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let settings =
            Settings::load(&folder.path().join("member/Cargo.toml"), folder.path(), &folder.path().join("config.toml"));
        settings.map(|mut settings| {
            settings.recipe = settings.recipe.map(|r| r.replace(&folder.path().display().to_string(), "ROOT"));
            settings
        })
    }

    #[test]
    fn the_most_specific_source_of_a_setting_wins() {
        let settings = load(&[
            ("member/Cargo.toml", "[package.metadata.nanochat]\nrecipe = \"own.toml\""),
            ("Cargo.toml", "[workspace.metadata.nanochat]\nrecipe = \"theirs\"\nseed = 7"),
            ("config.toml", "seed = 8\nthreads = 3"),
        ]);
        let expected = Settings { recipe: Some("ROOT/member/own.toml".to_owned()), seed: Some(7), threads: Some(3) };
        assert_eq!(settings.expect("valid settings"), expected);
    }

    #[test]
    fn unknown_keys_are_errors_that_name_their_file() {
        let error = load(&[("member/Cargo.toml", "[package.metadata.nanochat]\nrecpie = \"x\""), ("Cargo.toml", "")]);
        let message = error.expect_err("a misspelt key").to_string();
        assert!(message.contains("package.metadata.nanochat") && message.contains("recpie"), "{message}");
        let error = load(&[("member/Cargo.toml", ""), ("Cargo.toml", ""), ("config.toml", "colour = 1")]);
        assert!(error.expect_err("an unknown key").to_string().contains("colour"));
    }
}
