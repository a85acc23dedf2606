//! Records of a whole file, by its grammar.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::{
    Attribute, Fields, FnArg, GenericParam, Generics, ImplItem, Item, ReturnType, Signature, TraitItem, Type,
    Visibility,
};

use super::standard::{is_harmless, is_known_derive, trait_name};
use super::{Record, RecordKind, Records, tolerant};
use crate::text::SourceFile;
use crate::text::parser::{is_parsable, with_parser};

/// The records of each file: all of them, or the public ones. Files that do not parse, or nest too deep for the parser,
/// are read as the live buffer is.
pub fn extract_each(files: &[SourceFile], only_public: bool) -> Vec<Records> {
    // On a thread of its own: the parser needs a deep stack, and keeps every text that a thread parsed.
    with_parser(|| {
        let extract = |SourceFile { text, .. }: &SourceFile| {
            let found = if is_parsable(text) { extract(text, only_public) } else { None };
            found.unwrap_or_else(|| tolerant::records(text))
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
                    self.add(RecordKind::Variant, &owner, &variant.ident.to_string(), None, None);
                }
            }
            // An alias has whatever its type has.
            Item::Type(item) => self.add(RecordKind::Open, &item.ident.to_string(), "", None, None),
            Item::Trait(item) => self.trait_(item),
            Item::Impl(item) => self.impl_(item),
            Item::Macro(item) => self.open_all(&item.mac.tokens),
            _ => {}
        }
    }

    fn type_(&mut self, owner: &str, attributes: &[Attribute]) {
        self.add(RecordKind::Type, owner, "", None, None);
        if !is_as_written(attributes) {
            self.add(RecordKind::Open, owner, "", None, None);
        }
    }

    fn fields(&mut self, owner: &str, fields: &Fields) {
        for field in fields {
            let Some(name) = &field.ident else { continue };
            if self.shows(&field.vis) {
                self.add(RecordKind::Field, owner, &name.to_string(), None, Some(&field.ty));
            }
        }
    }

    fn trait_(&mut self, item: &syn::ItemTrait) {
        let owner = item.ident.to_string();
        self.add(RecordKind::Trait, &owner, "", None, None);
        if !is_as_written(&item.attrs) {
            self.add(RecordKind::Open, &owner, "", None, None);
        }
        for item in &item.items {
            match item {
                TraitItem::Fn(function) => self.function(&owner, &function.sig),
                TraitItem::Const(item) => self.add(RecordKind::Associated, &owner, &item.ident.to_string(), None, None),
                TraitItem::Type(item) => self.add(RecordKind::Associated, &owner, &item.ident.to_string(), None, None),
                _ => self.add(RecordKind::Open, &owner, "", None, None),
            }
        }
    }

    fn impl_(&mut self, item: &syn::ItemImpl) {
        let Type::Path(path) = &*item.self_ty else { return };
        let Some(owner) = path.path.segments.last() else { return };
        let owner = owner.ident.to_string();
        // In `impl<T> Trait for T` the owner is no type; the trait has a record of its own.
        if is_parameter(&item.generics, &owner) {
            return;
        }
        let of_trait = item.trait_.as_ref().and_then(|(path, _)| path.segments.last());
        if let Some((path, _)) = &item.trait_ {
            self.add(RecordKind::Implements, &owner, trait_name(self.source(path.span())), None, None);
        }
        if !is_as_written(&item.attrs) {
            self.add(RecordKind::Open, &owner, "", None, None);
        }
        for item in &item.items {
            match item {
                ImplItem::Fn(function) if of_trait.is_some() || self.shows(&function.vis) => {
                    self.function(&owner, &function.sig);
                    if !is_as_written(&function.attrs) {
                        self.add(RecordKind::Open, &owner, "", None, None);
                    }
                }
                ImplItem::Const(item) => self.add(RecordKind::Associated, &owner, &item.ident.to_string(), None, None),
                ImplItem::Type(item) => self.add(RecordKind::Associated, &owner, &item.ident.to_string(), None, None),
                ImplItem::Macro(_) | ImplItem::Verbatim(_) => self.add(RecordKind::Open, &owner, "", None, None),
                _ => {}
            }
        }
    }

    fn function(&mut self, owner: &str, signature: &Signature) {
        let has_self = matches!(signature.inputs.first(), Some(FnArg::Receiver(_)));
        let kind = if has_self { RecordKind::Method } else { RecordKind::Associated };
        let n_args = signature.inputs.len() - usize::from(has_self);
        // Arguments under a `cfg` cannot be counted.
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
                        self.add(RecordKind::Open, &name, "", None, None);
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

    fn add(&mut self, kind: RecordKind, owner: &str, name: &str, n_args: Option<usize>, type_: Option<&Type>) {
        let type_ = type_.map(|type_| self.source(type_.span())).unwrap_or_default();
        let type_ = if type_ == "Self" { owner } else { type_ };
        self.found.add(Record { kind, owner, name, n_args, type_ });
    }
}

fn is_parameter(generics: &Generics, name: &str) -> bool {
    generics.params.iter().any(|param| matches!(param, GenericParam::Type(param) if param.ident == name))
}

/// Whether no attribute lets a macro add members.
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
