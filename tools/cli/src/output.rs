//! How a command prints what it found: for a person or for a program.

use clap::ValueEnum;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For a person.
    Table,
    /// For a program.
    Json,
}

/// Lines of columns as wide as what stands in them; the last one is as long as it likes.
pub fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).chain([head[at].len()]).max();
    let widths: Vec<usize> = (0..N).map(|at| width(at).unwrap_or(0)).collect();
    let line = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let lines = rows.iter().map(|row| line(std::array::from_fn(|at| row[at].as_str())));
    [line(head)].into_iter().chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let rows = [["1".to_owned(), "long name".to_owned()], ["22".to_owned(), "x".to_owned()]];
        assert_eq!(columns(["ID", "NAME"], &rows), "ID  NAME\n1   long name\n22  x\n");
        assert_eq!(columns(["ID"], &[]), "ID\n");
    }
}
