//! `colima image`.

use std::{fs, path::Path};

use colima_core::Arch;
use colima_vm::image::{Error, Image, ImageId, ImageStore, PackageLock, Sources};
use serde_json::json;

use super::{Context, print, say, state_error};
use crate::{
    args::{ImageArgs, ImageVerb},
    assembly,
    command_error::{CommandError, ErrorKind},
    control::Stage,
    exit_code::ExitCode,
    instance::{base_of, build_image, image_builder, image_failure},
};

pub(super) async fn run(context: &Context<'_>, args: &ImageArgs) -> Result<ExitCode, CommandError> {
    context.state.check_version().map_err(state_error)?;
    let images = assembly::images(&context.state, context.environment)?;
    let store = ImageStore::new(&images.store);
    match &args.verb {
        ImageVerb::Build { lock, mirror } => {
            context.state.prepare().map_err(state_error)?;
            let mut builder = image_builder(host_arch()?, &images);
            if let Some(mirror) = mirror {
                builder.sources = Sources::Mirror(mirror.clone());
            }
            build(context, &builder, &store, lock.as_deref()).await
        }
        ImageVerb::Import { from } => {
            context.state.prepare().map_err(state_error)?;
            let image = store.import(from).map_err(|error| {
                image_failure(&error).hint(
                    "name a directory with a manifest.json, such as one of `_images` elsewhere",
                )
            })?;
            print(format!("{}\n", image.manifest.id))?;
            Ok(ExitCode::Ok)
        }
        ImageVerb::List { json } => list(&store, *json),
        ImageVerb::Verify { id } => verify(&store, id.as_deref()),
        ImageVerb::Rm { id } => remove(context, &store, id).await,
    }
}

fn host_arch() -> Result<Arch, CommandError> {
    Arch::host().ok_or_else(|| {
        CommandError::new(
            ErrorKind::Failure,
            "no image is built on this host's architecture",
        )
    })
}

async fn build(
    context: &Context<'_>,
    builder: &colima_vm::image::Builder,
    store: &ImageStore,
    lock: Option<&Path>,
) -> Result<ExitCode, CommandError> {
    let lock = lock.map(read_lock).transpose()?;
    let progress = std::sync::Mutex::new(context.progress());
    let with = |act: &dyn Fn(&mut crate::progress::Progress<_, _>)| {
        act(&mut progress
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner));
    };
    let watch = |stage: Stage| match stage {
        Stage::Begin { name } => with(&|progress| drop(progress.stage(&name))),
        Stage::Detail { text } => with(&|progress| drop(progress.detail(&text))),
        Stage::Note { text } => with(&|progress| drop(progress.note(&text))),
    };
    let mut signals = super::signals()?;
    let built = tokio::select! {
        built = build_image(builder, store, lock, &watch) => built,
        () = signals.next() => {
            Err(CommandError::new(ErrorKind::Interrupted, "the build was interrupted"))
        }
    };
    let image = built.inspect_err(|_| with(&|progress| drop(progress.failed())))?;
    with(&|progress| drop(progress.done("built")));
    print(format!("{}\n", image.manifest.id))?;
    Ok(ExitCode::Ok)
}

fn read_lock(path: &Path) -> Result<PackageLock, CommandError> {
    let what = || format!("the package lock {} cannot be used", path.display());
    let text = fs::read_to_string(path).map_err(|error| {
        CommandError::new(ErrorKind::Usage, what())
            .caused_by(&error)
            .hint("without one the newest packages are taken: colima image build")
    })?;
    text.parse()
        .map_err(|error: colima_vm::image::ParseLockError| {
            CommandError::new(ErrorKind::Usage, what()).caused_by(&error)
        })
}

fn list(store: &ImageStore, json: bool) -> Result<ExitCode, CommandError> {
    for image in store.list().map_err(|error| image_failure(&error))? {
        match image {
            Ok(Image { manifest, .. }) => {
                let size: u64 = manifest.files().iter().map(|file| file.size.get()).sum();
                let line = if json {
                    json!({
                        "id": manifest.id,
                        "arch": manifest.arch,
                        "kernel": manifest.kernel_release,
                        "size": size,
                        "built": manifest.built,
                    })
                    .to_string()
                } else {
                    let mib = size >> 20;
                    let Manifest {
                        id,
                        arch,
                        kernel_release,
                        ..
                    } = &manifest;
                    format!("{id}    {arch}    {mib}MiB    linux {kernel_release}")
                };
                print(format!("{line}\n"))?;
            }
            Err(error) => say(&image_failure(&error).to_string()),
        }
    }
    Ok(ExitCode::Ok)
}

use colima_vm::image::Manifest;

fn verify(store: &ImageStore, id: Option<&str>) -> Result<ExitCode, CommandError> {
    let ids: Vec<ImageId> = match id {
        Some(id) => vec![parse_id(id)?],
        None => all_ids(store)?,
    };
    for id in ids {
        store
            .verify(find(store, &id)?.manifest.arch, &id)
            .map_err(|error| image_failure(&error))?;
        print(format!("{id}: every file is as its manifest lists it\n"))?;
    }
    Ok(ExitCode::Ok)
}

fn all_ids(store: &ImageStore) -> Result<Vec<ImageId>, CommandError> {
    let images: Result<Vec<Image>, Error> =
        store.list().and_then(|images| images.into_iter().collect());
    let images = images.map_err(|error| image_failure(&error))?;
    Ok(images.into_iter().map(|image| image.manifest.id).collect())
}

/// Refuses while a profile's root disk lies over the image: without it that disk is lost.
async fn remove(
    context: &Context<'_>,
    store: &ImageStore,
    id: &str,
) -> Result<ExitCode, CommandError> {
    let id = parse_id(id)?;
    let image = find(store, &id)?;
    for profile in context.state.profiles().map_err(state_error)? {
        let paths = context.state.profile(&profile);
        let base = base_of(&paths.root_disk).await?;
        if base.is_some_and(|base| base == image.root_disk()) {
            let what = format!("profile {profile} uses the image {id}");
            return Err(CommandError::new(ErrorKind::Busy, what).hint(format!(
                "delete the profile first, its containers and images are kept: colima delete {profile}"
            )));
        }
    }
    store
        .remove(image.manifest.arch, &id)
        .map_err(|error| image_failure(&error))?;
    Ok(ExitCode::Ok)
}

/// The image of that name, of whichever architecture.
fn find(store: &ImageStore, id: &ImageId) -> Result<Image, CommandError> {
    let images = store.list().map_err(|error| image_failure(&error))?;
    let mut whole = images.into_iter().flatten();
    whole.find(|image| image.manifest.id == *id).ok_or_else(|| {
        CommandError::new(ErrorKind::Failure, format!("there is no image {id}"))
            .hint("the images there are: colima image list")
    })
}

fn parse_id(id: &str) -> Result<ImageId, CommandError> {
    id.parse()
        .map_err(|error: colima_vm::image::ParseImageIdError| {
            CommandError::new(ErrorKind::Usage, error.to_string())
                .hint("the images there are: colima image list")
        })
}
