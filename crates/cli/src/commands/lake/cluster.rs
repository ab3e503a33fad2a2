//! `anbiq lake scheduler` and `anbiq lake executor`.

use std::net::IpAddr;

use anbiq_lake::{Executor, Scheduler};
use anyhow::bail;

use crate::args::Lake;
use crate::talk::Talk;

pub(super) async fn scheduler(args: Lake, talk: Talk) -> anyhow::Result<()> {
    let Lake::Scheduler { bind, name, executors } = args else { bail!("these are arguments of another command") };
    warn_of_strangers(bind.ip(), talk);
    Ok(Scheduler { bind, name, executors }.run(|address| talk.say(&format!("listening on df://{address}"))).await?)
}

pub(super) async fn executor(args: Lake, talk: Talk) -> anyhow::Result<()> {
    let Lake::Executor { scheduler, bind, name, port, orders_port, memory, parts, folder } = args else {
        bail!("these are arguments of another command")
    };
    warn_of_strangers(bind, talk);
    let executor = Executor { scheduler, bind, name, ports: (port, orders_port), memory: memory << 20, parts, folder };
    Ok(executor.run().await?)
}

fn warn_of_strangers(bind: IpAddr, talk: Talk) {
    if !bind.is_loopback() {
        talk.say(&format!(
            "whoever reaches {bind} can read every file that the executors can read: nobody is asked for a password, and nothing is \
             encrypted\nhint: let a firewall or a private network keep others out"
        ));
    }
}
