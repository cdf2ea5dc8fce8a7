//! Guests small enough to be written as bytes, and the machines that run them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use colima_core::{Arch, Bytes};
use colima_vm::machine::{
    Accelerator, Boot, Firmware, Machine, MachineSpec, Network, Qemu, Readiness,
    spec::{Access, Disk, DiskFormat, Durability},
};

/// Generous: the host may be slow and busy, and everything is emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What a guest does after it has printed its text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// Halts with interrupts off: deaf to the power button.
    Hang,
    /// Powers off by ACPI.
    PowerOff,
    /// Resets.
    Reset,
    /// Powers off when the power button is pressed.
    AwaitButton,
    /// Counts in its memory and prints each number as [`number`] reads it.
    Count,
    /// Writes [`FILLED_BY`] bytes after the other from [`FILLED_FROM`] on, the first of each a 1, and prints `W` for
    /// each; `!` where it cannot.
    Fill,
}

/// Where a [`Then::Fill`] begins on its disk.
pub(crate) const FILLED_FROM: usize = 0x800 * 512;
/// How much it writes at once.
pub(crate) const FILLED_BY: usize = 64 * 512;

const HANG: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd]; // cli; hlt; jmp back to hlt
const POWER_OFF: &[u8] = &[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef]; // PM1a_CNT (0x604): S5, SLP_EN
const RESET: &[u8] = &[0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee]; // reset control register (0xcf9)
const AWAIT_BUTTON: &[u8] = &[
    0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, // PM1_EN (0x602): PWRBTN_EN
    0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xfa, // until PM1_STS has PWRBTN_STS
];
/// Counts at 0x7e00 and prints four digits of base 16, `A` to `P`, and an end of line; some milliseconds each.
const COUNT: &[u8] = &[
    0xc7, 0x06, 0x00, 0x7e, 0x00, 0x00, // the number = 0
    0xff, 0x06, 0x00, 0x7e, 0x8b, 0x1e, 0x00, 0x7e, 0xb9, 0x04,
    0x00, // next: bx = ++number; cx = 4
    0xc1, 0xc3, 0x04, 0x88, 0xd8, 0x24, 0x0f, 0x04,
    0x41, // digit: rol bx, 4; al = 'A' + (bl & 15)
    0x88, 0xc4, 0x80, 0xc2, 0x05, 0xec, 0xa8, 0x20, 0x74, 0xfb, // as in PRINT
    0x80, 0xea, 0x05, 0x88, 0xe0, 0xee, 0xe2, 0xe5, // out dx, al; loop digit
    0xb4, 0x0a, 0x80, 0xc2, 0x05, 0xec, 0xa8, 0x20, 0x74, 0xfb, // ah = LF
    0x80, 0xea, 0x05, 0x88, 0xe0, 0xee, //
    0x66, 0xb9, 0x00, 0x00, 0x40, 0x00, 0x66, 0x49, 0x75, 0xfc, // until --ecx is 0, from 4 Mi
    0xeb, 0xbe, // jmp next
];

/// The firmware's extended write, INT 13h with AH 43h, takes a packet: its size, sectors, address, first sector.
const FILL: &[u8] = &[
    0xc7, 0x06, 0x00, 0x7e, 0x10, 0x00, // [0x7e00] = 16
    0xc7, 0x06, 0x02, 0x7e, 0x40, 0x00, // 64 sectors
    0xc7, 0x06, 0x04, 0x7e, 0x00, 0x00, 0xc7, 0x06, 0x06, 0x7e, 0x00, 0x10, // from 0x1000:0
    0x66, 0xc7, 0x06, 0x08, 0x7e, 0x00, 0x08, 0x00, 0x00, // to sector 0x800
    0x66, 0xc7, 0x06, 0x0c, 0x7e, 0x00, 0x00, 0x00, 0x00, //
    0xb8, 0x00, 0x10, 0x8e, 0xc0, 0x26, 0xc6, 0x06, 0x00, 0x00, 0x01, // 0x1000:0 = 1
    0xb8, 0x00, 0x43, 0xb2, 0x80, 0xbe, 0x00, 0x7e, 0xcd,
    0x13, // next: ax = 0x4300; the packet; int 13h
    0xb0, 0x21, 0x72, 0x08, // al = '!'; jc print
    0x66, 0x83, 0x06, 0x08, 0x7e, 0x40, // the next 64 sectors
    0xb0, 0x57, // al = 'W'
    0xba, 0xf8, 0x03, // print: dx = COM1
    0x88, 0xc4, 0x80, 0xc2, 0x05, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x80, 0xea, 0x05, 0x88, 0xe0, 0xee,
    0xb4, 0x0a, 0x80, 0xc2, 0x05, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x80, 0xea, 0x05, 0x88, 0xe0, 0xee,
    0xeb, 0xc5, // jmp next
];

/// The number in a line that a [`Then::Count`] printed.
pub(crate) fn number(line: &str) -> Option<u32> {
    let digits = line.len() == 4 && line.bytes().all(|digit| (b'A'..=b'P').contains(&digit));
    digits.then(|| {
        line.bytes()
            .fold(0, |number, digit| number * 16 + u32::from(digit - b'A'))
    })
}

/// Prints from `si` until NUL, waiting for the transmitter of the UART whose port is in `dx`: else
/// what the firmware printed last is overwritten. The same bytes in real and protected mode.
const PRINT: &[u8] = &[
    0xac, 0x84, 0xc0, 0x74, 0x12, // next: lodsb; test al, al; jz done
    0x88, 0xc4, 0x80, 0xc2, 0x05, // mov ah, al; add dl, 5
    0xec, 0xa8, 0x20, 0x74, 0xfb, // busy: in al, dx; test al, THRE; jz busy
    0x80, 0xea, 0x05, 0x88, 0xe0, // sub dl, 5; mov al, ah
    0xee, 0xeb, 0xe9, // out dx, al; jmp next
];

/// A boot sector, run in real mode at 0x7c00.
fn boot_sector(text: &str, then: Then) -> Vec<u8> {
    let tail = match then {
        Then::Hang => HANG.to_vec(),
        Then::PowerOff => [POWER_OFF, HANG].concat(),
        Then::Reset => [RESET, HANG].concat(),
        Then::Count => COUNT.to_vec(),
        Then::Fill => FILL.to_vec(),
        Then::AwaitButton => [AWAIT_BUTTON, POWER_OFF, HANG].concat(),
    };
    let length = 6 + 3 + 3 + PRINT.len() + tail.len();
    let message = u16::try_from(0x7c00 + length).unwrap();
    let mut code = vec![0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xfc]; // cli, or the firmware prints on; ds = 0; cld
    code.push(0xbe); // mov si, message
    code.extend(message.to_le_bytes());
    code.extend([0xba, 0xf8, 0x03]); // mov dx, COM1
    code.extend(PRINT);
    code.extend(tail);
    assert_eq!(code.len(), length);
    code.extend(text.as_bytes());
    code.push(0);
    assert!(code.len() <= 510);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

/// A kernel for `-kernel`: the Multiboot Specification 0.6.96, section 3.1, loaded at 1 MiB.
pub(crate) fn multiboot_kernel(text: &str) -> Vec<u8> {
    const BASE: u32 = 0x10_0000;
    let (magic, flags) = (0x1bad_b002_u32, 0x1_0000_u32);
    let entry = BASE + 32;
    let mut image = Vec::new();
    for word in [
        magic,
        flags,
        0_u32.wrapping_sub(magic + flags),
        BASE,
        BASE,
        0,
        0,
        entry,
    ] {
        image.extend(word.to_le_bytes());
    }
    let length = 5 + 4 + PRINT.len() + HANG.len();
    let message = entry + u32::try_from(length).unwrap();
    image.push(0xbe); // mov esi, message
    image.extend(message.to_le_bytes());
    image.extend([0x66, 0xba, 0xf8, 0x03]); // mov dx, COM1
    image.extend(PRINT);
    image.extend(HANG);
    image.extend(text.as_bytes());
    image.push(0);
    image.resize(4096, 0);
    image
}

pub(crate) fn qemu_program() -> PathBuf {
    PathBuf::from("/usr/bin/qemu-system-x86_64")
}

pub(crate) fn qemu() -> Qemu {
    Qemu {
        program: qemu_program(),
        accelerator: Accelerator::Tcg,
        firmware: Firmware::default(),
    }
}

/// A disk that prints `text` and goes on as told, in a machine with one of everything.
pub(crate) fn spec(disk: &Path, text: &str, then: Then) -> MachineSpec {
    let mut image = boot_sector(text, then);
    image.resize(1 << 20, 0);
    fs::write(disk, image).unwrap();
    MachineSpec {
        name: "test".to_owned(),
        arch: Arch::X86_64,
        cpus: 1,
        memory: Bytes::mib(32),
        boot: Boot::Disk,
        disks: vec![Disk {
            path: disk.to_owned(),
            format: DiskFormat::Raw,
            base: None,
            access: Access::ReadWrite,
            serial: "boot".to_owned(),
            durability: Durability::Unsafe,
        }],
        network: Network::User,
    }
}

/// A machine in its own temporary directory, which is removed last.
pub(crate) struct Running {
    pub(crate) machine: Machine,
    pub(crate) home: tempfile::TempDir,
}

impl Running {
    pub(crate) fn directory(&self) -> PathBuf {
        self.home.path().join("machine")
    }
}

/// Launches a guest and waits until it has printed its text.
pub(crate) async fn running(then: Then) -> Running {
    let launched = launched("the guest speaks\n", then).await;
    launched
        .machine
        .wait_ready(Readiness::ConsoleLine("speaks".to_owned()), PATIENCE)
        .await
        .unwrap();
    launched
}

pub(crate) async fn launched(text: &str, then: Then) -> Running {
    let home = tempfile::tempdir().unwrap();
    let spec = spec(&home.path().join("boot.raw"), text, then);
    let machine = Machine::launch(&spec, &qemu(), &home.path().join("machine"))
        .await
        .unwrap();
    Running { machine, home }
}
