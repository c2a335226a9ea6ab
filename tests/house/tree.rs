//! The source tree of the program as the compiler sees it: which modules there are, what each
//! file defines, and which file each path in it leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The directory of Cargo.toml.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `directory`.
pub(crate) fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("a readable tree").path()) {
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The names of a path, in order.
type Names = Vec<String>;

/// One leaf of a `use`: `use a::{b as c}` is `c`, for a::b.
struct Import {
    /// `None`: everything in `path` (`*`).
    name: Option<String>,
    path: Names,
    /// `pub use`: hands a name on, and needs nothing of the file that defines it.
    is_handed_on: bool,
}

/// A module, be it a file or within one.
struct Module {
    /// Relative to src/.
    file: PathBuf,
    /// Compiled for tests alone.
    is_test: bool,
    items: BTreeSet<String>,
    imports: Vec<Import>,
    /// The paths in its code, but those of `use`.
    paths: BTreeSet<Names>,
    /// The types and traits that it defines.
    types: Vec<String>,
    /// The functions that it adds to types, but those of a trait: to which type, and its name.
    functions: BTreeSet<(Names, String)>,
    /// The functions that are called on a value.
    calls: BTreeSet<String>,
}

/// One file needs another for a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    /// As written.
    pub(crate) name: String,
    pub(crate) is_test: bool,
}

/// All modules of a crate, by their path without `crate`.
#[derive(Default)]
pub(crate) struct Tree(BTreeMap<Names, Module>);

/// Where a path leads.
enum Target {
    Module,
    /// To a name that this module defines.
    Item(Names, String),
    /// Out of the crate, or to a local name.
    Elsewhere,
}

impl Tree {
    /// The tree of src/.
    pub(crate) fn of_the_program() -> Self {
        let mut files = BTreeMap::new();
        let src = root().join("src");
        for file in sources(&src) {
            let text = std::fs::read_to_string(&file).expect("a readable file");
            let file = file.strip_prefix(&src).expect("below src").to_owned();
            files.insert(file, text);
        }
        let mut tree = Self::of(&files);
        for program in files.keys().filter(|file| file.starts_with("bin")) {
            let name = program.with_extension("");
            let names = name.iter().map(|n| n.display().to_string()).collect();
            tree.read(&files, program, names, false);
        }
        tree
    }

    /// The tree that begins at lib.rs of these files.
    pub(crate) fn of(files: &BTreeMap<PathBuf, String>) -> Self {
        let mut tree = Self::default();
        tree.read(files, Path::new("lib.rs"), Names::new(), false);
        tree
    }

    fn read(
        &mut self,
        files: &BTreeMap<PathBuf, String>,
        file: &Path,
        names: Names,
        is_test: bool,
    ) {
        let text = files.get(file).expect("a file that is there");
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.module(files, file, names, is_test, &parsed.items);
    }

    fn module(
        &mut self,
        files: &BTreeMap<PathBuf, String>,
        file: &Path,
        names: Names,
        is_test: bool,
        items: &[syn::Item],
    ) {
        let mut reader = Reader::new(file.to_owned(), is_test);
        for item in items {
            reader.visit_item(item);
        }
        for child in reader.children {
            let is_test = is_test || for_tests(&child.attrs);
            let mut names = names.clone();
            names.push(child.ident.to_string());
            match &child.content {
                Some((_, items)) => self.module(files, file, names, is_test, items),
                None => {
                    let below: PathBuf = names.iter().collect();
                    let plain = below.with_extension("rs");
                    let folder = below.join("mod.rs");
                    let file = if files.contains_key(&plain) {
                        plain
                    } else {
                        folder
                    };
                    self.read(files, &file, names, is_test);
                }
            }
        }
        self.0.insert(names, reader.module);
    }

    /// Every need of one file for another, each once.
    pub(crate) fn needs(&self) -> BTreeSet<Need> {
        let mut needs = BTreeSet::new();
        let elsewhere = self.functions_elsewhere();
        for (names, module) in &self.0 {
            let mut need = |to: &Path, name: String| {
                if to != module.file {
                    needs.insert(Need {
                        from: module.file.clone(),
                        to: to.to_owned(),
                        name,
                        is_test: module.is_test,
                    });
                }
            };
            let imports = module.imports.iter().filter(|i| !i.is_handed_on);
            let imports = imports.map(|import| import.path.clone());
            let own = module.types.iter().map(|name| vec![name.clone()]);
            for path in module.paths.iter().cloned().chain(imports).chain(own) {
                let Target::Item(target, item) = self.resolve(names, &path, 0) else {
                    continue;
                };
                need(&self.0[&target].file, path.join("::"));
                // Whoever names the type may call what another file has added to it.
                for (function, file) in elsewhere.get(&(target, item)).into_iter().flatten() {
                    if module.calls.contains(function) || path.last() == Some(function) {
                        need(file, function.clone());
                    }
                }
            }
        }
        needs
    }

    /// The functions of types that do not lie in the file of their type: by the module and the name
    /// of the type, with the file that each lies in.
    fn functions_elsewhere(&self) -> BTreeMap<(Names, String), Vec<(String, PathBuf)>> {
        let mut elsewhere = BTreeMap::<_, Vec<_>>::new();
        for (names, module) in self.0.iter().filter(|(_, m)| !m.is_test) {
            for (path, function) in &module.functions {
                if let Target::Item(target, item) = self.resolve(names, path, 0)
                    && self.0[&target].file != module.file
                {
                    let found = (function.clone(), module.file.clone());
                    elsewhere.entry((target, item)).or_default().push(found);
                }
            }
        }
        elsewhere
    }

    /// The types and traits, but those of tests: which, and the files that define one of that
    /// name.
    pub(crate) fn types(&self) -> BTreeMap<&str, Vec<&Path>> {
        let mut types = BTreeMap::<&str, Vec<_>>::new();
        for module in self.0.values().filter(|m| !m.is_test) {
            for name in &module.types {
                types.entry(name).or_default().push(module.file.as_path());
            }
        }
        types
    }

    /// The other crates that each file names, but in its tests.
    pub(crate) fn crates(&self) -> BTreeSet<(&Path, &str)> {
        let mut crates = BTreeSet::new();
        for (names, module) in self.0.iter().filter(|(_, m)| !m.is_test) {
            let imports = module.imports.iter().map(|i| &i.path);
            // One name alone is a crate's in `use` only; elsewhere it is a variable's.
            let paths = module.paths.iter().filter(|p| p.len() > 1);
            for path in paths.chain(imports) {
                let is_ours = !matches!(self.resolve(names, path, 0), Target::Elsewhere);
                if let (Some(first), false) = (path.first(), is_ours) {
                    crates.insert((module.file.as_path(), first.as_str()));
                }
            }
        }
        crates
    }

    /// Follows a path from a module, through what is handed on, to the module that defines it.
    fn resolve(&self, from: &Names, path: &[String], depth: usize) -> Target {
        let Some((first, rest)) = path.split_first() else {
            return Target::Elsewhere;
        };
        // Two modules that import everything of each other have no end.
        if depth > 16 {
            return Target::Elsewhere;
        }
        let above = || from.split_last().map(|(_, above)| above.to_vec());
        match first.as_str() {
            "crate" => self.within(Names::new(), rest, depth),
            "self" => self.within(from.clone(), rest, depth),
            "super" => match above() {
                Some(mut above) => {
                    let mut rest = rest;
                    while let Some(("super", behind)) = rest
                        .split_first()
                        .map(|(name, behind)| (name.as_str(), behind))
                    {
                        above.pop();
                        rest = behind;
                    }
                    self.within(above, rest, depth)
                }
                None => Target::Elsewhere,
            },
            _ => self.within(from.clone(), path, depth),
        }
    }

    /// Follows a path whose first name a module has.
    fn within(&self, names: Names, path: &[String], depth: usize) -> Target {
        let Some((first, rest)) = path.split_first() else {
            return Target::Module;
        };
        let Some(module) = self.0.get(&names) else {
            return Target::Elsewhere;
        };
        let mut child = names.clone();
        child.push(first.clone());
        let is_child = self.0.contains_key(&child);
        if is_child && !rest.is_empty() {
            return self.within(child, rest, depth);
        }
        if module.items.contains(first) {
            return Target::Item(names, first.clone());
        }
        for import in module
            .imports
            .iter()
            .filter(|i| i.name.as_ref() == Some(first))
        {
            // `use toml;` in a module with a child of that name means the crate.
            let path = [&import.path[..], rest].concat();
            if import.path.first() != Some(first) {
                return self.resolve(&names, &path, depth + 1);
            }
        }
        if is_child {
            return Target::Module;
        }
        for import in module.imports.iter().filter(|i| i.name.is_none()) {
            let path = [&import.path[..], path].concat();
            let found = self.resolve(&names, &path, depth + 1);
            if !matches!(found, Target::Elsewhere) {
                return found;
            }
        }
        Target::Elsewhere
    }
}

/// The names of a path.
fn names(path: &syn::Path) -> Names {
    let segments = path.segments.iter();
    segments.map(|s| s.ident.to_string()).collect()
}

/// Whether the code has the word `unsafe`.
pub(crate) fn has_unsafe(code: TokenStream) -> bool {
    code.into_iter().any(|token| match token {
        TokenTree::Group(group) => has_unsafe(group.stream()),
        TokenTree::Ident(word) => word == "unsafe",
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

/// Whether something is compiled for tests alone, or for tests and fuzzing.
fn for_tests(attributes: &[syn::Attribute]) -> bool {
    let written = |attribute: &syn::Attribute| {
        let list = attribute
            .meta
            .require_list()
            .map(|list| list.tokens.to_string());
        list.unwrap_or_default().replace(' ', "")
    };
    attributes.iter().any(|attribute| {
        let written = written(attribute);
        let is_meant = ["test", "any(test,fuzzing)"].contains(&&*written)
            || written.starts_with("all(any(test,fuzzing),");
        attribute.path().is_ident("cfg") && is_meant
    })
}

/// Reads the items of one module; those within its children are theirs.
struct Reader {
    module: Module,
    children: Vec<syn::ItemMod>,
}

impl Reader {
    fn new(file: PathBuf, is_test: bool) -> Self {
        let module = Module {
            file,
            is_test,
            items: BTreeSet::new(),
            imports: Vec::new(),
            paths: BTreeSet::new(),
            types: Vec::new(),
            functions: BTreeSet::new(),
            calls: BTreeSet::new(),
        };
        let children = Vec::new();
        Self { module, children }
    }

    fn defines(&mut self, name: &syn::Ident) {
        self.module.items.insert(name.to_string());
    }

    fn defines_type(&mut self, name: &syn::Ident) {
        self.defines(name);
        self.module.types.push(name.to_string());
    }

    fn import(&mut self, tree: &syn::UseTree, before: &[String], is_handed_on: bool) {
        let with = |name: &syn::Ident| {
            let mut path = before.to_vec();
            // `{self}` is what stands before the brace.
            if name != "self" || path.is_empty() {
                path.push(name.to_string());
            }
            path
        };
        let (name, path) = match tree {
            syn::UseTree::Path(path) => {
                return self.import(&path.tree, &with(&path.ident), is_handed_on);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, is_handed_on);
                }
                return;
            }
            syn::UseTree::Name(name) => {
                let path = with(&name.ident);
                (path.last().cloned(), path)
            }
            syn::UseTree::Rename(rename) => (Some(rename.rename.to_string()), with(&rename.ident)),
            syn::UseTree::Glob(_) => (None, before.to_vec()),
        };
        self.module.imports.push(Import {
            name,
            path,
            is_handed_on,
        });
    }

    /// Paths in what a macro or an attribute is given.
    fn tokens(&mut self, tokens: &TokenStream) {
        let tokens: Vec<_> = tokens.clone().into_iter().collect();
        let is = |i: usize, c: char| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == c);
        let mut i = 0;
        while let Some(token) = tokens.get(i) {
            match token {
                TokenTree::Group(group) => self.tokens(&group.stream()),
                TokenTree::Ident(word) => {
                    let is_field = i.checked_sub(1).is_some_and(|before| is(before, '.'));
                    let mut path = vec![word.to_string()];
                    while is(i + 1, ':') && is(i + 2, ':') {
                        let Some(TokenTree::Ident(word)) = tokens.get(i + 3) else {
                            break;
                        };
                        path.push(word.to_string());
                        i += 3;
                    }
                    if is_field {
                        self.module.calls.extend(path);
                    } else {
                        self.module.paths.insert(path);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            i += 1;
        }
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a syn::Item) {
        match item {
            syn::Item::Mod(child) => return self.children.push(child.clone()),
            syn::Item::Use(item) => {
                let is_handed_on = !matches!(item.vis, syn::Visibility::Inherited);
                return self.import(&item.tree, &[], is_handed_on);
            }
            syn::Item::Struct(item) => self.defines_type(&item.ident),
            syn::Item::Enum(item) => self.defines_type(&item.ident),
            syn::Item::Union(item) => self.defines_type(&item.ident),
            syn::Item::Trait(item) => self.defines_type(&item.ident),
            syn::Item::Type(item) => self.defines_type(&item.ident),
            syn::Item::Const(item) => self.defines(&item.ident),
            syn::Item::Static(item) => self.defines(&item.ident),
            syn::Item::Fn(item) => self.defines(&item.sig.ident),
            syn::Item::ExternCrate(_)
            | syn::Item::ForeignMod(_)
            | syn::Item::Impl(_)
            | syn::Item::Macro(_)
            | syn::Item::TraitAlias(_)
            | syn::Item::Verbatim(_)
            | _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names = names(path);
        // A function of the file's own type, which another file may have added to it.
        if let [first, .., last] = &names[..]
            && first == "Self"
        {
            self.module.calls.insert(last.clone());
        }
        self.module.paths.insert(names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(&call.tokens);
    }

    fn visit_attribute(&mut self, attribute: &'a syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(&list.tokens);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        self.module.calls.insert(call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }

    /// `pub(super)` needs nothing.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_item_impl(&mut self, block: &'a syn::ItemImpl) {
        if let (None, syn::Type::Path(of)) = (&block.trait_, &*block.self_ty) {
            for item in &block.items {
                if let syn::ImplItem::Fn(function) = item {
                    let name = function.sig.ident.to_string();
                    self.module.functions.insert((names(&of.path), name));
                }
            }
        }
        visit::visit_item_impl(self, block);
    }
}

/// A small crate, of which the tests know what it needs.
pub(crate) fn sample() -> BTreeMap<PathBuf, String> {
    [
        // What a parent hands on is its child's.
        (
            "lib.rs",
            "mod a; mod b; pub use a::A; #[cfg(test)] mod t { use crate::b::c::C; }",
        ),
        (
            "a.rs",
            "use crate::b::{self, D}; pub struct A(D); fn f() { x!(g, b::h()); g.m() } \
                    impl A { fn o() { Self::n() } }",
        ),
        (
            "b/mod.rs",
            "mod c; pub use c::*; pub(super) use c::h; struct E; use pcap; fn i(j: u8) {}",
        ),
        (
            "b/c.rs",
            "use super::super::A as Other; pub struct C; pub struct D; \
                    pub fn h() { unsafe { l::m::toml::n() } j.k(); crate::b::E } impl Other { fn m() {} fn n() {} }",
        ),
    ]
    .map(|(file, text)| (file.into(), text.to_owned()))
    .into()
}

#[test]
fn what_is_needed_is_seen() {
    let tree = Tree::of(&sample());
    let seen: Vec<_> = tree.needs().into_iter().collect();
    let need = |from: &str, to: &str, name: &str, is_test| Need {
        from: from.into(),
        to: to.into(),
        name: name.to_owned(),
        is_test,
    };
    let mut expected = vec![
        need("a.rs", "b/c.rs", "D", false),
        need("a.rs", "b/c.rs", "b::h", false),
        need("a.rs", "b/c.rs", "crate::b::D", false),
        // A function that another file has added to a type of this one.
        need("a.rs", "b/c.rs", "m", false),
        need("a.rs", "b/c.rs", "n", false),
        need("b/c.rs", "a.rs", "Other", false),
        need("b/c.rs", "a.rs", "super::super::A", false),
        need("b/c.rs", "b/mod.rs", "crate::b::E", false),
        need("lib.rs", "b/c.rs", "crate::b::c::C", true),
    ];
    expected.sort();
    assert_eq!(seen, expected);
    let crates = tree.crates();
    assert!(crates.contains(&(Path::new("b/mod.rs"), "pcap")));
    assert!(crates.contains(&(Path::new("b/c.rs"), "l")));
    assert!(
        !crates
            .iter()
            .any(|(_, name)| ["a", "b", "c", "toml"].contains(name))
    );
    assert!(has_unsafe(
        sample()[Path::new("b/c.rs")].parse().expect("Rust")
    ));
    assert!(!has_unsafe(
        "/// unsafe\n fn f() { \"unsafe\"; } // unsafe"
            .parse()
            .expect("Rust")
    ));
}
