//! No file imports itself through others, in the exporter and in the mock.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMacro, ItemMod, ItemUse, UseTree, Visibility};

/// Path of a module in its crate; empty for the crate root.
type ModulePath = Vec<String>;

/// A file of a crate: what it re-exports, and the paths that it names.
#[derive(Default)]
struct Module {
    /// Re-exported name, and the path it comes from.
    exports: BTreeMap<String, Vec<String>>,
    /// Paths of imports and expressions, without those of tests.
    paths: BTreeSet<Vec<String>>,
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut leaves);
        let exported = !matches!(item.vis, Visibility::Inherited);
        for (path, name) in leaves {
            if exported {
                self.exports.insert(name, path);
            } else if !is_test(&item.attrs) {
                self.paths.insert(path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string());
        self.paths.insert(segments.collect());
        visit::visit_path(self, path);
    }

    /// The arguments of a macro are expressions in most macros of the standard library.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        type Arguments = syn::punctuated::Punctuated<syn::Expr, syn::Token![,]>;
        if let Ok(arguments) = call.parse_body_with(Arguments::parse_terminated) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
    }

    fn visit_item_macro(&mut self, _: &'ast ItemMacro) {}
}

/// Whether an item exists in tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    let text = |attribute: &Attribute| match &attribute.meta {
        syn::Meta::List(list) => list.tokens.to_string(),
        syn::Meta::Path(_) | syn::Meta::NameValue(_) => String::new(),
    };
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && text(attribute) == "test")
}

/// The paths of a `use`, each with the name that it introduces.
fn flatten(tree: &UseTree, prefix: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, String)>) {
    let leaf = |prefix: &[String], last: &str| {
        let mut path = prefix.to_vec();
        if last != "self" {
            path.push(last.to_owned());
        }
        path
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, leaves);
            prefix.pop();
        }
        UseTree::Name(name) => {
            let path = leaf(prefix, &name.ident.to_string());
            let introduced = path.last().cloned().unwrap_or_default();
            leaves.push((path, introduced));
        }
        UseTree::Rename(rename) => {
            leaves.push((leaf(prefix, &rename.ident.to_string()), rename.rename.to_string()));
        }
        UseTree::Glob(_) => leaves.push((prefix.clone(), String::new())),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, prefix, leaves));
        }
    }
}

/// The modules of a crate by their paths.
struct Crate(BTreeMap<ModulePath, Module>);

impl Crate {
    fn read(source: &Path) -> Self {
        let mut modules = BTreeMap::new();
        for file in rust_files(source) {
            let inside = file.strip_prefix(source).unwrap().with_extension("");
            let mut path: ModulePath =
                inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if matches!(path.as_slice(), [root] if root == "lib" || root == "main") {
                path.clear();
            }
            let syntax = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
            let is_test_file = syntax
                .items
                .iter()
                .all(|item| matches!(item, Item::Mod(module) if is_test(&module.attrs)));
            let module: &mut Module = modules.entry(path).or_default();
            if !is_test_file {
                module.visit_file(&syntax);
            }
        }
        Self(modules)
    }

    /// The file in which `path`, named in the module `from`, is defined.
    fn target(&self, from: &[String], path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let (mut module, mut rest) = match first.as_str() {
            "crate" => (Vec::new(), rest),
            "self" => (from.to_vec(), rest),
            "super" => (from.split_last()?.1.to_vec(), rest),
            _ => (from.to_vec(), path),
        };
        while let [segment, after @ ..] = rest {
            if segment == "super" {
                module.pop()?;
            } else if self
                .0
                .contains_key(&[module.as_slice(), std::slice::from_ref(segment)].concat())
            {
                module.push(segment.clone());
            } else {
                break;
            }
            rest = after;
        }
        let is_relative = !matches!(first.as_str(), "crate" | "self" | "super");
        if is_relative && module == from {
            return None;
        }
        let exported = rest.first().and_then(|name| self.0.get(&module)?.exports.get(name));
        match exported {
            Some(origin) if origin.as_slice() != path => {
                self.target(&module, &[origin.as_slice(), rest.get(1..)?].concat())
            }
            Some(_) | None => Some(module),
        }
    }

    /// What each file imports of other files of the crate, except those around it: a file may use what
    /// its parent modules define.
    fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<ModulePath>> {
        let of = |(from, module): (&ModulePath, &Module)| -> BTreeSet<ModulePath> {
            let targets = module.paths.iter().filter_map(|path| self.target(from, path));
            targets.filter(|target| !from.starts_with(target)).collect()
        };
        self.0.iter().map(|entry| (entry.0, of(entry))).collect()
    }
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The imports that are part of a cycle, one per line.
fn cycles(source: &Path) -> Vec<String> {
    let syntax = Crate::read(source);
    let imports = syntax.imports();
    let reaches = |from: &ModulePath, to: &ModulePath| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            if file == to {
                return true;
            }
            if seen.insert(file) {
                next.extend(imports.get(file).into_iter().flatten());
            }
        }
        false
    };
    let name = |path: &ModulePath| if path.is_empty() { "lib".to_owned() } else { path.join("::") };
    let arrows = imports.iter().flat_map(|(file, targets)| {
        let back = targets.iter().filter(|target| reaches(target, file));
        back.map(move |target| format!("{} -> {}", name(file), name(target)))
    });
    arrows.collect()
}

#[test]
fn no_file_of_the_exporter_imports_itself() {
    let found = cycles(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found.is_empty(), "move what is shared to a file of its own:\n{}", found.join("\n"));
}

#[test]
fn no_file_of_the_mock_imports_itself() {
    let found = cycles(&Path::new(env!("CARGO_MANIFEST_DIR")).join("mock-nvml/src"));
    assert!(found.is_empty(), "move what is shared to a file of its own:\n{}", found.join("\n"));
}

#[test]
fn a_cycle_is_found_through_imports_expressions_and_re_exports() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; mod c; mod d;");
    write("a.rs", "mod inner; pub use inner::Inner; fn f() { crate::b::g(); }");
    write("a/inner.rs", "pub struct Inner;");
    write("b.rs", "use crate::{a::Inner, c}; pub fn g() {}");
    write("c.rs", "use crate::d::D; #[cfg(test)] mod tests { use crate::b::g; }");
    write("d.rs", "pub struct D;");
    assert_eq!(cycles(folder.path()), Vec::<String>::new(), "a re-export is not an import");
    write("d.rs", "pub struct D(super::b::G);");
    assert_eq!(cycles(folder.path()), ["b -> c", "c -> d", "d -> b"]);
}
