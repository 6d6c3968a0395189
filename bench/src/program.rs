//! Programs that peers and loads need.

/// A required program.
pub(crate) struct Program {
    /// Its name, or its path.
    pub name: &'static str,
    /// The distribution's package that holds it.
    pub package: &'static str,
}

impl Program {
    /// A program, by name or path, and its package.
    pub(crate) const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    /// Returns whether it is installed.
    pub(crate) fn is_installed(&self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Joining an absolute path replaces the folder.
        std::env::split_paths(&path).any(|folder| folder.join(self.name).exists())
    }
}
