//! Reads a size and a profile name as a person types them.

use colima_core::{Bytes, Endpoint, ProfileName};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profile: ProfileName = "work".parse()?;
    let memory: Bytes = "4GiB".parse()?;
    println!("{} gets {} bytes", profile.instance(), memory.get());

    let endpoint: Endpoint = "unix:/run/docker.sock".parse()?;
    assert_eq!(endpoint.to_string(), "unix:/run/docker.sock");
    assert!("4 bananas".parse::<Bytes>().is_err());
    Ok(())
}
