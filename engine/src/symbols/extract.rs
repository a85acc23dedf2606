//! Records of a whole file, by its grammar.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::{
    Attribute, Fields, FnArg, GenericParam, Generics, ImplItem, Item, ReturnType, Signature, TraitItem, Type,
    Visibility,
};

use super::{Kind, Record, Records, live};
use crate::text::syntax::{is_parsable, with_parser};
use crate::workspace::sources::SourceFile;

/// Attributes that leave a type as it is written, by the first name of their path.
const HARMLESS: [&str; 26] = [
    "allow",
    "automatically_derived",
    "cfg",
    "cfg_attr",
    "clippy",
    "default",
    "deny",
    "deprecated",
    "derive",
    "diagnostic",
    "doc",
    "error",
    "expect",
    "forbid",
    "inline",
    "must_use",
    "non_exhaustive",
    "repr",
    "rustc_on_unimplemented",
    "rustfmt",
    "serde",
    "stable",
    "track_caller",
    "unstable",
    "warn",
    "cold",
];
/// Derives whose methods are those of a trait.
const KNOWN_DERIVES: [&str; 12] = [
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "PartialEq",
    "Eq",
    "PartialOrd",
    "Ord",
    "Hash",
    "Serialize",
    "Deserialize",
    "Error",
];

/// What the types and traits of each file have: all of it, or what is public. Files that do not parse, or nest too deep for
/// the parser, are read as a live text is.
pub fn extract_each(files: &[SourceFile], only_public: bool) -> Vec<Records> {
    // On a thread of its own: the parser needs a deep stack, and keeps every text that a thread parsed.
    with_parser(|| {
        let extract = |SourceFile { text, .. }: &SourceFile| {
            let found = if is_parsable(text) { extract(text, only_public) } else { None };
            found.unwrap_or_else(|| live::records(text))
        };
        files.iter().map(extract).collect()
    })
}

fn extract(text: &str, only_public: bool) -> Option<Records> {
    let stream: TokenStream = text.parse().ok()?;
    let file = syn::parse2::<syn::File>(stream).ok()?;
    let mut extract = Extract { text, only_public, found: Records::default() };
    extract.items(&file.items);
    Some(extract.found)
}

struct Extract<'a> {
    text: &'a str,
    only_public: bool,
    found: Records,
}

impl<'a> Extract<'a> {
    fn items(&mut self, items: &[Item]) {
        items.iter().for_each(|item| self.item(item));
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Mod(module) => self.items(module.content.as_ref().map_or(&[][..], |(_, items)| items)),
            Item::Struct(item) => {
                let owner = item.ident.to_string();
                self.type_(&owner, &item.attrs);
                self.fields(&owner, &item.fields);
            }
            Item::Union(item) => {
                let owner = item.ident.to_string();
                self.type_(&owner, &item.attrs);
                self.fields(&owner, &Fields::Named(item.fields.clone()));
            }
            Item::Enum(item) => {
                let owner = item.ident.to_string();
                self.type_(&owner, &item.attrs);
                for variant in &item.variants {
                    self.add(Kind::Variant, &owner, &variant.ident.to_string(), None, None);
                }
            }
            // What an alias has is what it stands for.
            Item::Type(item) => self.add(Kind::Open, &item.ident.to_string(), "", None, None),
            Item::Trait(item) => self.trait_(item),
            Item::Impl(item) => self.impl_(item),
            Item::Macro(item) => self.open_all(&item.mac.tokens),
            _ => {}
        }
    }

    fn type_(&mut self, owner: &str, attributes: &[Attribute]) {
        self.add(Kind::Type, owner, "", None, None);
        if !is_as_written(attributes) {
            self.add(Kind::Open, owner, "", None, None);
        }
    }

    fn fields(&mut self, owner: &str, fields: &Fields) {
        for field in fields {
            let Some(name) = &field.ident else { continue };
            if self.shows(&field.vis) {
                self.add(Kind::Field, owner, &name.to_string(), None, Some(&field.ty));
            }
        }
    }

    fn trait_(&mut self, item: &syn::ItemTrait) {
        let owner = item.ident.to_string();
        self.add(Kind::Trait, &owner, "", None, None);
        if !is_as_written(&item.attrs) {
            self.add(Kind::Open, &owner, "", None, None);
        }
        for item in &item.items {
            match item {
                TraitItem::Fn(function) => self.function(&owner, &function.sig),
                TraitItem::Const(item) => self.add(Kind::Associated, &owner, &item.ident.to_string(), None, None),
                TraitItem::Type(item) => self.add(Kind::Associated, &owner, &item.ident.to_string(), None, None),
                _ => self.add(Kind::Open, &owner, "", None, None),
            }
        }
    }

    fn impl_(&mut self, item: &syn::ItemImpl) {
        let Type::Path(path) = &*item.self_ty else { return };
        let Some(owner) = path.path.segments.last() else { return };
        let owner = owner.ident.to_string();
        // `impl<T> Trait for T`: the trait has it.
        if is_parameter(&item.generics, &owner) {
            return;
        }
        let of_trait = item.trait_.as_ref().and_then(|(path, _)| path.segments.last());
        if let Some((path, _)) = &item.trait_ {
            self.add(Kind::Implements, &owner, trait_name(self.source(path.span())), None, None);
        }
        if !is_as_written(&item.attrs) {
            self.add(Kind::Open, &owner, "", None, None);
        }
        for item in &item.items {
            match item {
                ImplItem::Fn(function) if of_trait.is_some() || self.shows(&function.vis) => {
                    self.function(&owner, &function.sig);
                    if !is_as_written(&function.attrs) {
                        self.add(Kind::Open, &owner, "", None, None);
                    }
                }
                ImplItem::Const(item) => self.add(Kind::Associated, &owner, &item.ident.to_string(), None, None),
                ImplItem::Type(item) => self.add(Kind::Associated, &owner, &item.ident.to_string(), None, None),
                ImplItem::Macro(_) | ImplItem::Verbatim(_) => self.add(Kind::Open, &owner, "", None, None),
                _ => {}
            }
        }
    }

    fn function(&mut self, owner: &str, signature: &Signature) {
        let has_self = matches!(signature.inputs.first(), Some(FnArg::Receiver(_)));
        let kind = if has_self { Kind::Method } else { Kind::Associated };
        let n_args = signature.inputs.len() - usize::from(has_self);
        // Some that not every configuration has cannot be counted.
        let is_certain = signature.inputs.iter().all(|input| match input {
            FnArg::Receiver(_) => true,
            FnArg::Typed(input) => input.attrs.is_empty(),
        });
        let returned = match &signature.output {
            ReturnType::Default => None,
            ReturnType::Type(_, type_) => Some(&**type_),
        };
        let is_plain = signature.asyncness.is_none()
            && returned.is_none_or(|type_| {
                !matches!(type_, Type::Path(path) if path.path.segments.len() == 1
                && is_parameter(&signature.generics, &path.path.segments[0].ident.to_string()))
            });
        self.add(
            kind,
            owner,
            &signature.ident.to_string(),
            is_certain.then_some(n_args),
            returned.filter(|_| is_plain),
        );
    }

    /// A macro may write anything for the types that it is given.
    fn open_all(&mut self, tokens: &TokenStream) {
        for token in tokens.clone() {
            match token {
                TokenTree::Group(group) => self.open_all(&group.stream()),
                TokenTree::Ident(name) => {
                    let name = name.to_string();
                    if name.starts_with(char::is_uppercase) {
                        self.add(Kind::Open, &name, "", None, None);
                    }
                }
                _ => {}
            }
        }
    }

    fn shows(&self, visibility: &Visibility) -> bool {
        !self.only_public || matches!(visibility, Visibility::Public(_))
    }

    fn source(&self, span: proc_macro2::Span) -> &'a str {
        self.text.get(span.byte_range()).unwrap_or_default()
    }

    fn add(&mut self, kind: Kind, owner: &str, name: &str, n_args: Option<usize>, type_: Option<&Type>) {
        let type_ = type_.map(|type_| self.source(type_.span())).unwrap_or_default();
        let type_ = if type_ == "Self" { owner } else { type_ };
        self.found.add(Record { kind, owner, name, n_args, type_ });
    }
}

/// The name of a trait, with the module that it is said to be in where that is none of the standard library's.
pub(super) fn trait_name(path: &str) -> &str {
    let end = path.find('<').unwrap_or(path.len());
    let path = path[..end].trim();
    let Some((modules, name)) = path.rsplit_once("::") else { return path };
    let module = modules.rsplit("::").next().unwrap_or_default();
    let is_std = matches!(
        module,
        "std"
            | "core"
            | "alloc"
            | "fmt"
            | "error"
            | "ops"
            | "cmp"
            | "convert"
            | "hash"
            | "iter"
            | "io"
            | "str"
            | "borrow"
    );
    if is_std { name } else { &path[path.len() - module.len() - "::".len() - name.len()..] }
}

fn is_parameter(generics: &Generics, name: &str) -> bool {
    generics.params.iter().any(|param| matches!(param, GenericParam::Type(param) if param.ident == name))
}

/// Whether nothing says that a macro adds to it.
fn is_as_written(attributes: &[Attribute]) -> bool {
    attributes.iter().all(|attribute| {
        let Some(first) = attribute.path().segments.first() else { return true };
        if first.ident != "derive" {
            return is_harmless(&first.ident.to_string());
        }
        let mut is_known = true;
        let parsed = attribute.parse_nested_meta(|derive| {
            let name = derive.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
            is_known &= is_known_derive(&name);
            Ok(())
        });
        is_known && parsed.is_ok()
    })
}

/// Whether an attribute whose path begins so leaves what it stands before as it is written.
pub(super) fn is_harmless(attribute: &str) -> bool {
    HARMLESS.contains(&attribute)
}

/// Whether what a derive adds is what a trait has.
pub(super) fn is_known_derive(name: &str) -> bool {
    KNOWN_DERIVES.contains(&name)
}
