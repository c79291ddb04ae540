//! Rows as CSV (RFC 4180) and as Apache Parquet, piece by piece.

use std::io;
use std::mem;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::instant;

/// Rows of one row group: what an export has in memory.
const GROUP_ROWS: usize = 5_000;

/// A format of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a line of names, in UTF-8.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Whole numbers.
    Integer,
    /// Numbers.
    Number,
    /// Moments, as milliseconds since 1970 (UTC).
    Time,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column(pub &'static str, pub Kind);

/// One field of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// None.
    Nothing,
    /// Text.
    Text(String),
    /// A whole number or a moment.
    Integer(i64),
    /// A number.
    Number(f64),
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Nothing, Self::Text)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Writes a table.
pub enum Table {
    /// As CSV.
    Csv(&'static [Column], bool),
    /// As Parquet.
    Parquet(Box<Columns>),
}

/// A Parquet file that is being written.
pub struct Columns {
    columns: &'static [Column],
    writer: SerializedFileWriter<Vec<u8>>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table of these columns.
    ///
    /// # Errors
    /// Where the columns make no schema.
    pub fn new(format: Format, columns: &'static [Column]) -> io::Result<Self> {
        Ok(match format {
            Format::Csv => Self::Csv(columns, false),
            Format::Parquet => Self::Parquet(Box::new(Columns::new(columns).map_err(io::Error::other)?)),
        })
    }

    /// Adds rows, each with a cell for each column, and gives back the bytes that are ready.
    ///
    /// # Errors
    /// Of the encoder.
    pub fn add(&mut self, rows: Vec<Vec<Cell>>) -> io::Result<Vec<u8>> {
        match self {
            Self::Csv(columns, begun) => {
                let mut text = String::new();
                if !mem::replace(begun, true) {
                    line(&mut text, columns.iter().map(|column| column.0.to_owned()));
                }
                for row in &rows {
                    line(&mut text, row.iter().zip(*columns).map(|(cell, column)| field(cell, column.1)));
                }
                Ok(text.into_bytes())
            }
            Self::Parquet(file) => file.add(rows).map_err(io::Error::other),
        }
    }

    /// The last bytes.
    ///
    /// # Errors
    /// Of the encoder.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Csv(..) => self.add(Vec::new()),
            Self::Parquet(file) => file.finish().map_err(io::Error::other),
        }
    }
}

fn line(text: &mut String, fields: impl Iterator<Item = String>) {
    let fields: Vec<String> = fields.collect();
    text.push_str(&fields.join(","));
    text.push_str("\r\n");
}

/// A field with its quotes. Spreadsheets take text that begins with one of a few signs for a formula, and run it: an
/// apostrophe before it keeps them from that.
fn field(cell: &Cell, kind: Kind) -> String {
    match cell {
        Cell::Nothing => String::new(),
        Cell::Integer(millis) if kind == Kind::Time => instant::text(*millis),
        Cell::Integer(number) => number.to_string(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => {
            let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
                "'"
            } else {
                ""
            };
            let quoted = !guard.is_empty() || text.contains([',', '"', '\r', '\n', ';']) || text.trim() != text;
            if quoted { format!("\"{guard}{}\"", text.replace('"', "\"\"")) } else { text.clone() }
        }
    }
}

impl Columns {
    fn new(columns: &'static [Column]) -> Result<Self, ParquetError> {
        let fields: String = columns
            .iter()
            .map(|Column(name, kind)| match kind {
                Kind::Text => format!("optional binary {name} (utf8); "),
                Kind::Integer => format!("optional int64 {name}; "),
                Kind::Number => format!("optional double {name}; "),
                Kind::Time => format!("optional int64 {name} (timestamp(millis, true)); "),
            })
            .collect();
        let schema = Arc::new(parse_message_type(&format!("message saccade {{ {fields}}}"))?);
        let created_by = concat!("saccade ", env!("CARGO_PKG_VERSION")).to_owned();
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_created_by(created_by);
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build()))?;
        Ok(Self { columns, writer, rows: Vec::new() })
    }

    fn add(&mut self, rows: Vec<Vec<Cell>>) -> Result<Vec<u8>, ParquetError> {
        self.rows.extend(rows);
        if self.rows.len() >= GROUP_ROWS {
            self.write_group()?;
        }
        self.writer.flush()?;
        Ok(mem::take(self.writer.inner_mut()))
    }

    fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        self.writer.into_inner()
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        for (index, Column(_, kind)) in self.columns.iter().enumerate() {
            let cells = rows.iter().map(|row| row.get(index).unwrap_or(&Cell::Nothing));
            match kind {
                Kind::Text => column::<ByteArrayType>(&mut group, cells, |cell| match cell {
                    Cell::Text(text) => Some(ByteArray::from(text.as_bytes().to_vec())),
                    _ => None,
                })?,
                Kind::Integer | Kind::Time => column::<Int64Type>(&mut group, cells, |cell| match cell {
                    Cell::Integer(number) => Some(*number),
                    _ => None,
                })?,
                Kind::Number => column::<DoubleType>(&mut group, cells, |cell| match cell {
                    Cell::Number(number) => Some(*number),
                    _ => None,
                })?,
            }
        }
        group.close().map(drop)
    }
}

fn column<'a, T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    cells: impl Iterator<Item = &'a Cell>,
    value: impl Fn(&Cell) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        let value = value(cell);
        levels.push(i16::from(value.is_some()));
        values.extend(value);
    }
    let Some(mut column) = group.next_column()? else { return Err(ParquetError::General("no column".to_owned())) };
    column.typed::<T>().write_batch(&values, Some(&levels), None)?;
    column.close()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column("time", Kind::Time),
        Column("name", Kind::Text),
        Column("count", Kind::Integer),
        Column("p95", Kind::Number),
    ];

    fn row(time: i64, name: &str) -> Vec<Cell> {
        vec![Cell::Integer(time), Cell::Text(name.into()), Cell::Integer(-3), Cell::Number(1.5)]
    }

    #[test]
    fn csv_is_quoted_and_runs_no_formulas() {
        let mut table = Table::new(Format::Csv, COLUMNS).unwrap();
        let names = ["door", "a \"b\", c", "=HYPERLINK(\"x\")", "+1", "-1", "@x", "\t=1", " edge", "two\nlines", ""];
        let text = table.add(names.iter().map(|name| row(0, name)).collect()).unwrap();
        let nothing = table.add(vec![vec![Cell::Nothing, Cell::Nothing, Cell::Nothing, Cell::Nothing]]).unwrap();
        let rest = table.finish().unwrap();
        let text = String::from_utf8([text, nothing, rest].concat()).unwrap();
        let shown = [
            "door",
            "\"a \"\"b\"\", c\"",
            "\"'=HYPERLINK(\"\"x\"\")\"",
            "\"'+1\"",
            "\"'-1\"",
            "\"'@x\"",
            "\"'\t=1\"",
            "\" edge\"",
            "\"two\nlines\"",
            "",
        ];
        let mut expected = "time,name,count,p95\r\n".to_owned();
        for name in shown {
            expected.push_str(&format!("1970-01-01T00:00:00.000Z,{name},-3,1.5\r\n"));
        }
        expected.push_str(",,,\r\n");
        assert_eq!(text, expected);
        let empty = Table::new(Format::Csv, COLUMNS).unwrap().finish().unwrap();
        assert_eq!(empty, b"time,name,count,p95\r\n");
    }

    #[test]
    fn parquet_is_written_group_by_group() {
        let mut table = Table::new(Format::Parquet, COLUMNS).unwrap();
        let mut bytes = Vec::new();
        let mut pieces = 0;
        for page in 0..12 {
            let piece = table.add((0..1000).map(|at| row(page * 1000 + at, "door")).collect()).unwrap();
            pieces += usize::from(piece.len() > 1000);
            bytes.extend(piece);
        }
        bytes.extend(table.finish().unwrap());
        assert_eq!(pieces, 2, "what is whole is not kept in memory");
        assert_eq!((&bytes[..4], &bytes[bytes.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
        use parquet::file::reader::{FileReader as _, SerializedFileReader};
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 12_000);
        assert_eq!(reader.num_row_groups(), 3);
        let last = reader.get_row_iter(None).unwrap().last().unwrap().unwrap();
        assert_eq!(last.to_string(), "{time: 1970-01-01 00:00:11.999 +00:00, name: \"door\", count: -3, p95: 1.5}");
    }
}
