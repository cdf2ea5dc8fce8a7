//! The fields of the header, each checked for itself.

use super::{
    LARGEST_L1_TABLE, LARGEST_REFCOUNT_TABLE, LONGEST_NAME, MOST_SNAPSHOTS, Refusal,
    SMALLEST_SNAPSHOT, Table, TableFault, incompatible,
};

const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Length of a header of version 2; version 3 has at least [`LENGTH_3`].
const LENGTH_2: u32 = 72;
const LENGTH_3: u32 = 104;
/// QEMU keeps the name of a format in 16 bytes.
const LONGEST_FORMAT: usize = 15;

mod extension {
    pub(super) const END: u32 = 0;
    pub(super) const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub(super) const DATA_FILE: u32 = 0x4441_5441;
}

/// The header as it is in the file.
pub(super) struct Fields {
    pub(super) version: u32,
    backing_offset: u64,
    backing_length: u32,
    pub(super) cluster_bits: u32,
    pub(super) virtual_size: u64,
    pub(super) crypt_method: u32,
    l1_entries: u32,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u32,
    pub(super) snapshots: u32,
    snapshots_offset: u64,
    pub(super) incompatible: u64,
    header_length: u32,
}

/// Extensions that matter here.
#[derive(Default)]
pub(super) struct Extensions<'a> {
    pub(super) backing_format: Option<&'a [u8]>,
    pub(super) data_file: Option<&'a [u8]>,
}

fn be32(head: &[u8], at: usize) -> Result<u32, Refusal> {
    let bytes = head.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .map(|bytes| u32::from_be_bytes(*bytes))
        .ok_or(Refusal::Truncated)
}

fn be64(head: &[u8], at: usize) -> Result<u64, Refusal> {
    let bytes = head.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or(Refusal::Truncated)
}

/// Offsets within the head; what does not fit a `usize` is outside of it anyway.
fn within(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Fields {
    pub(super) fn read(head: &[u8]) -> Result<Self, Refusal> {
        if !head.starts_with(MAGIC) {
            return Err(Refusal::NotQcow2);
        }
        let version = be32(head, 4)?;
        let (incompatible, refcount_order, header_length) = match version {
            2 => (0, 4, LENGTH_2),
            3 => (be64(head, 72)?, be32(head, 96)?, be32(head, 100)?),
            _ => return Err(Refusal::Version { version }),
        };
        let fields = Self {
            version,
            backing_offset: be64(head, 8)?,
            backing_length: be32(head, 16)?,
            cluster_bits: be32(head, 20)?,
            virtual_size: be64(head, 24)?,
            crypt_method: be32(head, 32)?,
            l1_entries: be32(head, 36)?,
            l1_offset: be64(head, 40)?,
            refcount_offset: be64(head, 48)?,
            refcount_clusters: be32(head, 56)?,
            snapshots: be32(head, 60)?,
            snapshots_offset: be64(head, 64)?,
            incompatible,
            header_length,
        };
        if !(9..=21).contains(&fields.cluster_bits) {
            return Err(Refusal::ClusterBits {
                bits: fields.cluster_bits,
            });
        }
        if refcount_order > 6 {
            return Err(Refusal::RefcountOrder {
                order: refcount_order,
            });
        }
        let shortest = if version == 2 { LENGTH_2 } else { LENGTH_3 };
        if header_length < shortest
            || !header_length.is_multiple_of(8)
            || u64::from(header_length) > fields.cluster_size()
        {
            return Err(Refusal::HeaderLength {
                length: header_length,
            });
        }
        // Optional fields begin at byte 104; of a shorter header they read as zero.
        let compression = if header_length > LENGTH_3 {
            *head.get(104).ok_or(Refusal::Truncated)?
        } else {
            0
        };
        let announced = incompatible & incompatible::COMPRESSION != 0;
        if compression > 1 || announced != (compression != 0) {
            return Err(Refusal::Compression { kind: compression });
        }
        if fields.has_subclusters() && fields.cluster_bits < 14 {
            return Err(Refusal::Subclusters {
                bits: fields.cluster_bits,
            });
        }
        Ok(fields)
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn has_subclusters(&self) -> bool {
        self.incompatible & incompatible::EXTENDED_L2 != 0
    }

    /// Checks that the tables are in the file and as long as they need to be.
    pub(super) fn check_tables(&self, file_length: u64) -> Result<(), Refusal> {
        // One L1 entry maps an L2 table, which is one cluster of entries of 8 (or 16) bytes.
        let entry_bits = if self.has_subclusters() { 4 } else { 3 };
        let needed = self
            .virtual_size
            .div_ceil(1 << (2 * self.cluster_bits - entry_bits));
        if u64::from(self.l1_entries) < needed {
            return Err(Refusal::L1TooSmall {
                entries: self.l1_entries,
                needed,
            });
        }
        if self.snapshots > MOST_SNAPSHOTS {
            return Err(Refusal::Snapshots {
                count: self.snapshots,
            });
        }
        let l1_length = u64::from(self.l1_entries) * 8;
        let refcount_length = u64::from(self.refcount_clusters) << self.cluster_bits;
        let snapshots_length = u64::from(self.snapshots) * SMALLEST_SNAPSHOT;
        for (table, offset, length, longest) in [
            (Table::L1, self.l1_offset, l1_length, LARGEST_L1_TABLE),
            (
                Table::Refcount,
                self.refcount_offset,
                refcount_length,
                LARGEST_REFCOUNT_TABLE,
            ),
            (
                Table::Snapshot,
                self.snapshots_offset,
                snapshots_length,
                u64::MAX,
            ),
        ] {
            let fault = match (table, length) {
                (Table::Refcount, 0) => Some(TableFault::Missing),
                (Table::L1 | Table::Snapshot, 0) => None,
                _ if length > longest => Some(TableFault::TooLong),
                _ if !offset.is_multiple_of(self.cluster_size()) => Some(TableFault::Misaligned),
                _ if offset == 0 => Some(TableFault::InHeader),
                _ if offset
                    .checked_add(length)
                    .is_none_or(|end| end > file_length) =>
                {
                    Some(TableFault::BeyondEnd)
                }
                _ => None,
            };
            if let Some(fault) = fault {
                return Err(Refusal::Table {
                    table,
                    offset,
                    length,
                    fault,
                });
            }
        }
        Ok(())
    }

    /// Walks the extensions, which lie behind the header and end at an end marker, at the name of the
    /// backing file or with the first cluster.
    pub(super) fn extensions<'a>(&self, head: &'a [u8]) -> Result<Extensions<'a>, Refusal> {
        let end = match self.backing_offset {
            0 => within(self.cluster_size()),
            offset => within(offset),
        };
        let visible = head.get(..end.min(head.len())).unwrap_or(head);
        let mut found = Extensions::default();
        let mut at = within(self.header_length.into());
        while at != end {
            let (Ok(kind), Ok(length)) = (be32(visible, at), be32(visible, at.saturating_add(4)))
            else {
                return Err(Refusal::Extensions);
            };
            let start = at + 8;
            let length = within(length.into());
            let data = start
                .checked_add(length)
                .and_then(|end| visible.get(start..end))
                .ok_or(Refusal::Extensions)?;
            match kind {
                extension::END => break,
                extension::BACKING_FORMAT if length > LONGEST_FORMAT => {
                    return Err(Refusal::Extensions);
                }
                extension::BACKING_FORMAT => found.backing_format = Some(data),
                extension::DATA_FILE => found.data_file = Some(data),
                // A reader skips what it does not know, says the specification.
                _ => {}
            }
            at = start + length.next_multiple_of(8);
        }
        Ok(found)
    }

    /// The name of the backing file, within the first cluster.
    pub(super) fn backing_name<'a>(&self, head: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
        if self.backing_offset == 0 {
            return Ok(None);
        }
        let (start, length) = (
            within(self.backing_offset),
            within(self.backing_length.into()),
        );
        let end = start.checked_add(length).ok_or(Refusal::BackingName)?;
        if length > LONGEST_NAME
            || start < within(self.header_length.into())
            || end > within(self.cluster_size())
        {
            return Err(Refusal::BackingName);
        }
        head.get(start..end).map(Some).ok_or(Refusal::BackingName)
    }
}
