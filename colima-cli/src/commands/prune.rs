//! `colima prune`.

use std::{fs, io, path::Path};

use colima_core::Bytes;
use colima_vm::image::{Image, ImageStore};

use super::{Context, confirm_or_say_how, delete::remove, say, state_error};
use crate::{
    args::PruneArgs,
    assembly,
    command_error::CommandError,
    exit_code::ExitCode,
    instance::{base_of, image_failure},
};

pub(super) async fn run(context: &Context<'_>, args: &PruneArgs) -> Result<ExitCode, CommandError> {
    context.state.check_version().map_err(state_error)?;
    let images = assembly::images(&context.state, context.environment)?;
    let store = ImageStore::new(&images.store);
    let unused = if args.all {
        unused(context, &store).await?
    } else {
        Vec::new()
    };
    let cache = context.environment.cache_root()?;
    let downloads = size_below(&images.packages);
    let imaged: Bytes = Bytes::new(
        unused
            .iter()
            .map(|image| size_below(&image.directory).get())
            .sum(),
    );
    if downloads.get() == 0 && unused.is_empty() {
        say("there is nothing to delete");
        return Ok(ExitCode::Ok);
    }
    let mut what = format!("delete {downloads} of downloads in {}", cache.display());
    if !unused.is_empty() {
        let ids: Vec<String> = unused
            .iter()
            .map(|image| image.manifest.id.to_string())
            .collect();
        what.push_str(&format!(" and {imaged} of images ({})", ids.join(", ")));
    }
    if !args.force && !confirm_or_say_how(&what, "colima prune --force")? {
        say("nothing was deleted");
        return Ok(ExitCode::Ok);
    }
    remove(&images.packages)?;
    for image in &unused {
        store
            .remove(image.manifest.arch, &image.manifest.id)
            .map_err(|error| image_failure(&error))?;
    }
    say(&format!(
        "deleted {}",
        Bytes::new(downloads.get() + imaged.get())
    ));
    Ok(ExitCode::Ok)
}

/// The images that no profile's root disk lies over.
async fn unused(context: &Context<'_>, store: &ImageStore) -> Result<Vec<Image>, CommandError> {
    let mut bases = Vec::new();
    for profile in context.state.profiles().map_err(state_error)? {
        bases.extend(base_of(&context.state.profile(&profile).root_disk).await?);
    }
    let images = store.list().map_err(|error| image_failure(&error))?;
    // A damaged one is `image rm`'s, which says what is wrong with it.
    let whole = images.into_iter().flatten();
    Ok(whole
        .filter(|image| !bases.contains(&image.root_disk()))
        .collect())
}

/// What files take that are there; what cannot be read is not counted.
fn size_below(path: &Path) -> Bytes {
    fn count(path: &Path) -> io::Result<u64> {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_dir() {
            return Ok(metadata.len());
        }
        let mut sum = 0;
        for entry in fs::read_dir(path)? {
            sum += count(&entry?.path()).unwrap_or_default();
        }
        Ok(sum)
    }
    Bytes::new(count(path).unwrap_or_default())
}
