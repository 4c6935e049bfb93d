//! The site-sync stream to the control half, kept open.

use std::{
    cell::RefCell, collections::BTreeSet, io, net::IpAddr, rc::Rc, sync::Arc, time::Duration,
};

use api::sync::{self, Down, Hello, Link, Running, Signed, Up};
use base::Revision;
use plan::Me;
use runtime::Tasks;
use tokio::sync::{Notify, mpsc, watch};
use tunnel::{Links, StreamHead};

use crate::{
    authority::Ask,
    lines::{Lines, send},
};

/// Lines under way in each direction. Up: full drops the line, status is said again. Down: full
/// waits.
const LINES: usize = 256;

/// A stream that ended is opened again after this.
const AGAIN: Duration = Duration::from_millis(50);

/// The data half's end of site-sync.
pub(crate) struct Intent {
    ups: mpsc::Sender<Up>,
    shared: Rc<Shared>,
}

struct Shared {
    stored: RefCell<(Option<Revision>, Vec<Arc<Signed>>)>,
    /// The VIPs that are up, once that is known.
    vips: watch::Sender<Option<BTreeSet<IpAddr>>>,
    /// The links that are up.
    links: watch::Sender<Vec<Link>>,
    /// What runs, once there is a service of which control is to know that.
    running: watch::Sender<Option<Vec<Running>>>,
    /// Close the stream and begin anew.
    again: Notify,
    /// Nothing is said before the disk was read.
    ready: Notify,
}

impl Intent {
    pub(crate) fn start(tasks: &Tasks, links: Links, me: Me) -> (Self, mpsc::Receiver<Down>) {
        let (ups, mut take_ups) = mpsc::channel(LINES);
        let (downs, take_downs) = mpsc::channel(LINES);
        let shared = Rc::new(Shared {
            stored: RefCell::new((None, Vec::new())),
            vips: watch::Sender::new(None),
            links: watch::Sender::default(),
            running: watch::Sender::new(None),
            again: Notify::new(),
            ready: Notify::new(),
        });
        let state = Rc::clone(&shared);
        tasks.spawn_local("site-sync", async move {
            state.ready.notified().await;
            loop {
                let stream = talk(&links, &me, &state, &mut take_ups, &downs);
                let end = tokio::select! {
                    end = stream => end,
                    () = state.again.notified() => Ok(()),
                };
                if let Err(error) = end {
                    tracing::debug!(%error, "site-sync with the control half ended");
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
        (Intent { ups, shared }, take_downs)
    }

    /// The disk was read: say what is here, and listen.
    pub(crate) fn open(&self) {
        self.shared.ready.notify_one();
    }

    /// What is on disk now.
    pub(crate) fn keep(&self, revision: Revision, envelopes: &[Arc<Signed>]) {
        let have = (revision > Revision(0)).then_some(revision);
        self.shared.stored.replace((have, envelopes.to_vec()));
    }

    /// These VIPs have a healthy endpoint: said now, and to every control part that comes.
    pub(crate) fn vips(&self, up: BTreeSet<IpAddr>) {
        self.shared.vips.send_replace(Some(up));
    }

    /// These links are up: said now, and to every control part that comes.
    pub(crate) fn links(&self, up: Vec<Link>) {
        self.shared.links.send_if_modified(|now| {
            let changed = *now != up;
            *now = up;
            changed
        });
    }

    /// So much runs, or there is no service of which control is to know that: said if it is other
    /// than before, and to every control part that comes.
    pub(crate) fn running(&self, running: Option<Vec<Running>>) {
        self.shared.running.send_if_modified(|now| {
            // What was said once is taken back.
            let running = running.or_else(|| now.as_ref().map(|_| Vec::new()));
            let changed = *now != running;
            *now = running;
            changed
        });
    }

    /// A delta does not fit: begin anew with nothing, so that a full update comes.
    pub(crate) fn ask_for_all(&self) {
        self.shared.stored.borrow_mut().0 = None;
        self.shared.again.notify_one();
    }

    /// Say something upward. A full queue drops it: what matters is said again.
    pub(crate) fn send(&self, up: Up) {
        if self.ups.try_send(up).is_err() {
            tracing::debug!("site-sync upward is full; a line is dropped");
        }
    }
}

async fn talk(
    links: &Links,
    me: &Me,
    shared: &Shared,
    ups: &mut mpsc::Receiver<Up>,
    downs: &mpsc::Sender<Down>,
) -> io::Result<()> {
    let head = StreamHead::to(Ask::Sync.authority());
    let stream = links
        .open_control(&me.site, &head)
        .await
        .map_err(io::Error::other)?;
    let (reader, mut writer) = tokio::io::split(stream);
    let (have, stored) = shared.stored.borrow().clone();
    let hello = Hello {
        site: me.site.clone(),
        node: me.node.clone(),
        have,
        time: runtime::wall(),
    };
    send(&mut writer, &Up::Hello(hello)).await?;
    for signed in stored {
        send(&mut writer, &Up::Stored(Arc::unwrap_or_clone(signed))).await?;
    }
    let mut lines = Lines::new(reader, sync::MAX_LINE_BYTES);
    let receive = async {
        while let Some(down) = lines.next::<Down>().await? {
            if downs.send(down).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let mut vips = shared.vips.subscribe();
    vips.mark_changed();
    let mut links = shared.links.subscribe();
    links.mark_changed();
    let mut running = shared.running.subscribe();
    running.mark_changed();
    let say = async {
        loop {
            let up = tokio::select! {
                Ok(()) = vips.changed() => match vips.borrow_and_update().clone() {
                    Some(up) => Up::Vips(up),
                    None => continue,
                },
                Ok(()) = links.changed() => Up::Links(links.borrow_and_update().clone()),
                Ok(()) = running.changed() => match running.borrow_and_update().clone() {
                    Some(running) => Up::Running(running),
                    None => continue,
                },
                up = ups.recv() => match up {
                    Some(up) => up,
                    None => return Ok(()),
                },
            };
            send(&mut writer, &up).await?;
        }
    };
    tokio::select! {
        end = receive => end,
        end = say => end,
    }
}
