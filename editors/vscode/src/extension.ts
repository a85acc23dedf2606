// The VS Code client: finds the language server, starts it, and shows its state.
//
// activate → findServer → LanguageClient → inline completions (vscode-languageclient's own) → ghost text

import * as vscode from "vscode";
import { LanguageClient, RevealOutputChannelOn, State } from "vscode-languageclient/node";
import { findServer, notFound } from "./server";
import { Status, watchStatus } from "./status";
import { settings, watchSettings } from "./settings";

let session: Session | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
    session = new Session();
    context.subscriptions.push(
        session,
        vscode.commands.registerCommand("nanochat.restart", () => session?.restart()),
        vscode.commands.registerCommand("nanochat.showOutput", () => session?.output.show()),
        vscode.workspace.onDidChangeConfiguration((event) => {
            if (event.affectsConfiguration("nanochat.server")) {
                void session?.restart();
            }
        }),
    );
    await session.start();
}

export async function deactivate(): Promise<void> {
    await session?.stop();
}

/** The window's server, from the first Rust file until the window closes. */
class Session implements vscode.Disposable {
    readonly output = vscode.window.createOutputChannel("nanochat", { log: true });
    private readonly status = new Status("nanochat.showOutput");
    private client: LanguageClient | undefined;
    private watch: vscode.Disposable | undefined;
    /** Starts and stops run one at a time: two quick restarts must not leave two servers. */
    private queue: Promise<void> = Promise.resolve();

    start(): Promise<void> {
        return this.enqueue(() => this.startNow());
    }

    stop(): Promise<void> {
        return this.enqueue(() => this.stopNow());
    }

    restart(): Promise<void> {
        return this.enqueue(async () => {
            await this.stopNow();
            await this.startNow();
        });
    }

    dispose(): void {
        void this.stop().finally(() => {
            this.status.dispose();
            this.output.dispose();
        });
    }

    private enqueue(step: () => Promise<void>): Promise<void> {
        this.queue = this.queue.then(step).catch((error: unknown) => {
            const message = error instanceof Error ? error.message : String(error);
            this.output.error(message);
            this.status.show("failed", message);
        });
        return this.queue;
    }

    private async startNow(): Promise<void> {
        const server = findServer();
        if (!server) {
            this.status.show("failed", notFound);
            // Not awaited: the message may stay open as long as the window.
            void vscode.window.showWarningMessage(`nanochat: ${notFound}`, "Open Settings").then((answer) => {
                if (answer) {
                    void vscode.commands.executeCommand("workbench.action.openSettings", "nanochat.server.path");
                }
            });
            return;
        }
        this.output.info(`starting ${[server.command, ...server.args].join(" ")}`);
        const client = new LanguageClient(
            "nanochat",
            "nanochat",
            { command: server.command, args: server.args },
            {
                documentSelector: [{ scheme: "file", language: "rust" }],
                initializationOptions: settings(),
                outputChannel: this.output,
                // A failed completion is simply missing; it never opens a panel over the code.
                revealOutputChannelOn: RevealOutputChannelOn.Never,
            },
        );
        client.onDidChangeState(({ newState }) => {
            if (newState === State.Starting) {
                this.status.show("starting");
            } else if (newState === State.Running) {
                // Also after the client has restarted a server that crashed.
                this.watch?.dispose();
                this.watch = vscode.Disposable.from(watchSettings(client), watchStatus(client, this.status));
            } else {
                this.status.show("stopped");
            }
        });
        this.client = client;
        await client.start();
    }

    private async stopNow(): Promise<void> {
        this.watch?.dispose();
        const client = this.client;
        this.client = undefined;
        this.watch = undefined;
        // `stop` throws if the client never started; `dispose` works in every state.
        await client?.dispose();
    }
}
