//! The modules of a crate, the files that they are in, and the file that a path leads to.

use std::collections::{BTreeMap, BTreeSet};

use crate::scan::{Import, Path, Scanned, scan};

/// Reads a file of the tree by its path; `None` if there is none.
pub type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An import of one file by another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Edge {
    /// The file that imports.
    pub from: String,
    /// The file that it imports from.
    pub to: String,
    /// The line of `from`.
    pub line: usize,
    /// What is imported, as written (groups written out).
    pub path: String,
}

struct Module {
    parent: Option<usize>,
    file: String,
    children: BTreeMap<String, usize>,
    scanned: Scanned,
}

/// The modules of a library, a program or a test program.
pub struct Modules(Vec<Module>);

/// A name in a module.
type Name = (usize, String);

/// What a path leads to.
#[derive(Clone, Copy)]
struct Target {
    module: usize,
    /// Whether the path names the module itself and not an item in it.
    is_module: bool,
}

impl Modules {
    /// Reads `root` (such as `switch/src/lib.rs`) and all modules below it.
    ///
    /// # Errors
    /// A file is missing or is not Rust: which, and why.
    pub fn read(root: &str, read: Read) -> Result<Modules, String> {
        let mut modules = Modules(Vec::new());
        let text = read(root).ok_or_else(|| format!("{root}: cannot be read"))?;
        let folder = folder_of(root);
        let scanned = scan(&text).map_err(|error| format!("{root}: {error}"))?;
        modules.add(None, root, &folder, scanned, read)?;
        Ok(modules)
    }

    /// Adds a module and those below it; `folder` is where files of child modules are looked for.
    fn add(
        &mut self,
        parent: Option<usize>,
        file: &str,
        folder: &str,
        scanned: Scanned,
        read: Read,
    ) -> Result<usize, String> {
        let id = self.0.len();
        let (inline, files) = (scanned.inline.clone(), scanned.files.clone());
        self.0.push(Module { parent, file: file.into(), children: BTreeMap::new(), scanned });
        for (name, inner) in inline {
            let child = self.add(Some(id), file, &format!("{folder}/{name}"), inner, read)?;
            self.0[id].children.insert(name, child);
        }
        for (name, path) in files {
            let places = match &path {
                Some(path) => vec![normal(&format!("{}/{path}", folder_of(file)))],
                None => vec![format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")],
            };
            let Some((place, text)) =
                places.iter().find_map(|place| read(place).map(|text| (place, text)))
            else {
                return Err(format!("{file}: no file for `mod {name}`: {}", places.join(", ")));
            };
            let scanned = scan(&text).map_err(|error| format!("{place}: {error}"))?;
            let below = match place.strip_suffix(".rs") {
                Some(stem) if path.is_none() && !stem.ends_with("/mod") => stem.to_owned(),
                _ => folder_of(place),
            };
            let child = self.add(Some(id), place, &below, scanned, read)?;
            self.0[id].children.insert(name, child);
        }
        Ok(id)
    }

    /// All imports of one file by another; what a module takes from those around it is left out.
    pub fn edges(&self) -> BTreeSet<Edge> {
        let mut edges = BTreeSet::new();
        for (id, module) in self.0.iter().enumerate() {
            let imports = module.scanned.imports.iter().filter(|import| self.is_used(id, import));
            for path in imports.map(|import| &import.path).chain(&module.scanned.paths) {
                let Some(target) = self.resolve(id, path, &mut Vec::new()) else { continue };
                let to = &self.0[target.module].file;
                if self.lies_in(id, target.module) {
                    continue;
                }
                edges.insert(Edge {
                    from: module.file.clone(),
                    to: to.clone(),
                    line: path.line,
                    path: path.segments.join("::"),
                });
            }
        }
        edges
    }

    /// Whether a module imports for itself, and does not only show a name of a module in it
    /// outside.
    fn is_used(&self, id: usize, import: &Import) -> bool {
        let is_inside = || {
            let target = self.resolve(id, &import.path, &mut Vec::new());
            target.is_some_and(|target| self.lies_in(target.module, id))
        };
        let is_named =
            import.name.as_ref().is_some_and(|name| self.0[id].scanned.words.contains(name));
        !import.is_public || is_named || !is_inside()
    }

    /// Whether module `inner` lies in a module that the file of `outer` has.
    fn lies_in(&self, inner: usize, outer: usize) -> bool {
        std::iter::successors(Some(inner), |&id| self.0[id].parent)
            .any(|id| self.0[id].file == self.0[outer].file)
    }

    /// Follows a path from a module. `asked` holds the names being looked up, which may go in a
    /// circle.
    fn resolve(&self, from: usize, path: &Path, asked: &mut Vec<Name>) -> Option<Target> {
        let (first, rest) = path.segments.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Target { module: 0, is_module: true },
            "self" => Target { module: from, is_module: true },
            "super" => Target { module: self.0[from].parent?, is_module: true },
            name => self.named(from, name, asked)?,
        };
        for segment in rest {
            if !at.is_module {
                // A variant or an associated item.
                break;
            }
            at = match segment.as_str() {
                "super" => Target { module: self.0[at.module].parent?, is_module: true },
                "self" => at,
                name => self
                    .named(at.module, name, asked)
                    .unwrap_or(Target { module: at.module, is_module: false }),
            };
        }
        Some(at)
    }

    fn named(&self, id: usize, name: &str, asked: &mut Vec<Name>) -> Option<Target> {
        let question = (id, name.to_owned());
        if asked.contains(&question) {
            return None;
        }
        asked.push(question);
        let target = self.look_up(id, name, asked);
        asked.pop();
        target
    }

    /// What a name means in a module: a child, an import, or an item that it or a glob has.
    fn look_up(&self, id: usize, name: &str, asked: &mut Vec<Name>) -> Option<Target> {
        let module = &self.0[id];
        if let Some(&child) = module.children.get(name) {
            return Some(Target { module: child, is_module: true });
        }
        let imports = &module.scanned.imports;
        let named = imports.iter().filter(|import| import.name.as_deref() == Some(name));
        for import in named {
            if let Some(target) = self.resolve(id, &import.path, asked) {
                return Some(target);
            }
        }
        if module.scanned.items.iter().any(|item| item == name) {
            return Some(Target { module: id, is_module: false });
        }
        imports.iter().filter(|import| import.name.is_none()).find_map(|glob| {
            let target = self.resolve(id, &glob.path, asked)?;
            target.is_module.then(|| self.named(target.module, name, asked)).flatten()
        })
    }
}

fn folder_of(file: &str) -> String {
    file.rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default()
}

/// Resolves `..` in a path.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
