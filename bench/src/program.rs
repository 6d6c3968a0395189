//! Programs that peers and loads need.

/// A program that something here needs.
pub struct Program {
    /// Its name, or its path.
    pub name: &'static str,
    /// The distribution's package that holds it.
    pub package: &'static str,
}

impl Program {
    /// A program, by its name or path, and its package.
    pub const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    /// Whether it is on this machine.
    pub fn is_installed(&self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // An absolute name replaces the folder that it is joined to.
        std::env::split_paths(&path).any(|folder| folder.join(self.name).exists())
    }
}
