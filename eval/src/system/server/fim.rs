//! Fill-in-the-middle prompts of each model family: special tokens and their order.

/// Format of the prompt that a server gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fim {
    /// Tokens of Qwen2.5-Coder and Qwen3-Coder.
    Qwen,
    /// Tokens of StarCoder and StarCoder2.
    StarCoder,
    /// Tokens of CodeGemma.
    CodeGemma,
    /// Tokens of DeepSeek-Coder and its V2.
    DeepSeek,
    /// llama.cpp's `/infill`, which takes the tokens from the model file.
    Infill,
}

/// Special tokens around prefix and suffix. All families here put the prefix first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) prefix: &'static str,
    pub(super) suffix: &'static str,
    pub(super) middle: &'static str,
    /// Tokens that end a completion, in addition to the three above.
    pub(super) ends: &'static [&'static str],
}

/// Qwen2.5-Coder Technical Report (2024), table 1 and section 3.1; the README of QwenLM/Qwen2.5-Coder, “Fill in the
/// middle with Qwen2.5-Coder”, lists the tokens that end a completion.
const QWEN: Template = Template {
    prefix: "<|fim_prefix|>",
    suffix: "<|fim_suffix|>",
    middle: "<|fim_middle|>",
    ends: &["<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>"],
};

/// Model card of bigcode/starcoder, “Fill-in-the-middle”; `<file_sep>` is StarCoder2's (Lozhkov et al. 2024, table 5).
const STARCODER: Template = Template {
    prefix: "<fim_prefix>",
    suffix: "<fim_suffix>",
    middle: "<fim_middle>",
    ends: &["<|endoftext|>", "<fim_pad>", "<file_sep>", "<repo_name>"],
};

/// Model card of google/codegemma-2b: terminators are the three and `<|file_separator|>`. There must be no white space
/// between the tokens and the text (“CodeGemma prompt structure”, ai.google.dev).
const CODEGEMMA: Template = Template {
    prefix: "<|fim_prefix|>",
    suffix: "<|fim_suffix|>",
    middle: "<|fim_middle|>",
    ends: &["<|file_separator|>", "<eos>", "<end_of_turn>"],
};

/// README of deepseek-ai/DeepSeek-Coder, “Code Insertion”: begin, prefix, hole, suffix, end. The bars are U+FF5C, the
/// low lines U+2581.
const DEEPSEEK: Template = Template {
    prefix: "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
    suffix: "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
    middle: "<\u{ff5c}fim\u{2581}end\u{ff5c}>",
    ends: &["<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>", "<|EOT|>"],
};

impl Fim {
    /// All formats, in the order of the help text.
    pub const ALL: [Self; 5] = [Self::Qwen, Self::StarCoder, Self::CodeGemma, Self::DeepSeek, Self::Infill];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qwen => "qwen",
            Self::StarCoder => "starcoder",
            Self::CodeGemma => "codegemma",
            Self::DeepSeek => "deepseek",
            Self::Infill => "infill",
        }
    }

    /// The family, recognized from a model's name or path.
    pub(super) fn of_model(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let families = [
            ("codegemma", Self::CodeGemma),
            ("starcoder", Self::StarCoder),
            ("deepseek", Self::DeepSeek),
            ("qwen", Self::Qwen),
        ];
        families.into_iter().find(|(family, _)| name.contains(family)).map(|(_, fim)| fim)
    }

    /// The special tokens; `None` for `/infill`, where the server knows them.
    pub(super) fn template(self) -> Option<Template> {
        match self {
            Self::Qwen => Some(QWEN),
            Self::StarCoder => Some(STARCODER),
            Self::CodeGemma => Some(CODEGEMMA),
            Self::DeepSeek => Some(DEEPSEEK),
            Self::Infill => None,
        }
    }
}

impl Template {
    pub(super) fn prompt(&self, prefix: &str, suffix: &str) -> String {
        [self.prefix, prefix, self.suffix, suffix, self.middle].concat()
    }

    /// All tokens that end a completion.
    pub(super) fn stops(&self) -> impl Iterator<Item = &'static str> {
        self.ends.iter().copied().chain([self.prefix, self.suffix, self.middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_those_of_the_model_cards() {
        let prompt = |fim: Fim| fim.template().expect("a template").prompt("fn f() {", "}");
        assert_eq!(prompt(Fim::Qwen), "<|fim_prefix|>fn f() {<|fim_suffix|>}<|fim_middle|>");
        assert_eq!(prompt(Fim::StarCoder), "<fim_prefix>fn f() {<fim_suffix>}<fim_middle>");
        assert_eq!(prompt(Fim::CodeGemma), "<|fim_prefix|>fn f() {<|fim_suffix|>}<|fim_middle|>");
        assert_eq!(prompt(Fim::DeepSeek), "<｜fim▁begin｜>fn f() {<｜fim▁hole｜>}<｜fim▁end｜>");
        assert_eq!(Fim::Infill.template(), None);
    }

    #[test]
    fn families_are_recognized_by_name() {
        for (name, fim) in [
            ("Qwen/Qwen2.5-Coder-0.5B", Some(Fim::Qwen)),
            ("qwen2.5-coder:0.5b-base-q8_0", Some(Fim::Qwen)),
            ("/models/starcoder2-3b.Q4_K_M.gguf", Some(Fim::StarCoder)),
            ("google/codegemma-2b", Some(Fim::CodeGemma)),
            ("deepseek-coder-1.3b-base", Some(Fim::DeepSeek)),
            ("llama-3.2-1b", None),
            ("gemma-2b", None),
        ] {
            assert_eq!(Fim::of_model(name), fim, "{name}");
        }
    }
}
