//! Describes a machine and has the description checked. Booting one needs a kernel; examples/ does that.

use colima_core::{Arch, Bytes};
use colima_vm::machine::{Boot, Kernel, MachineSpec, Network};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut spec = MachineSpec {
        name: "tiny".to_owned(),
        arch: Arch::X86_64,
        cpus: 2,
        memory: Bytes::mib(256),
        boot: Boot::Kernel(Kernel {
            image: "/boot/vmlinuz".into(),
            initrd: Vec::new(),
            command_line: "console=ttyS0".to_owned(),
        }),
        disks: Vec::new(),
        network: Network::None,
    };
    spec.validate()?;
    spec.memory = Bytes::mib(1);
    println!("{}", spec.validate().expect_err("too little memory"));
    Ok(())
}
