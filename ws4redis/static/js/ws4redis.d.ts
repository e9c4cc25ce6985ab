// Types of ws4redis.js and ws4redis.mjs.

export type Json = null | boolean | number | string | Json[] | {[key: string]: Json};

/** Where messages of a channel are missing, and what follows goes on. */
export interface Gap {
    channel: string;
    epoch: string;
    offset: number;
}

/** What an event stream says of messages that are missing. */
export interface StreamGap {
    cause: string;
}

/** Why a command failed: an error of the client protocol, or of the project. */
export interface ClientError {
    code: number;
    message?: string;
    reason?: string;
}

export interface Options {
    uri: string | URL;
    heartbeat_msg?: string | null;
    connecting?(): void;
    connected?(): void;
    receive_message?(data: string | Blob): void;
    disconnected?(event: CloseEvent): void;
    /** A StreamGap where `get_transport()` is an event stream. */
    gap?(info: Gap | StreamGap): void;
}

export interface Client {
    client: string;
    user?: string;
    conn_info?: Json;
    chan_info?: Json;
}

export interface Publication<Data = Json> {
    data: Data;
    offset?: number;
}

export interface Subscribed {
    recoverable?: boolean;
    recovered?: boolean;
    was_recovering?: boolean;
    epoch?: string;
    offset?: number;
}

export interface Handlers<Data = Json> {
    /** A position of the page, from `get_position()` or `{% websocket_position %}`. */
    since?: string | {epoch: string; offset: number};
    /** A token for this channel. */
    token?: string;
    received?(data: Data, publication: Publication<Data>): void;
    subscribed?(reply: Subscribed): void;
    gap?(info: Gap): void;
    joined?(client: Client): void;
    left?(client: Client): void;
    refused?(error: ClientError): void;
}

export interface Subscription {
    readonly channel: string;
    publish(data: Json): Promise<void>;
    unsubscribe(): void;
}

export interface ConnectOptions {
    uri: string | URL;
    token?: string;
    get_token?(): string | Promise<string>;
    /** Where a token is fetched, as `get_token` would: `connection_token_view`. */
    token_url?: string;
    data?: Json;
    /** How many commands wait while there is no connection; 100 by default. */
    max_queue?: number;
    connecting?(): void;
    connected?(reply: {client: string; expires?: boolean; ttl?: number}): void;
    disconnected?(event: CloseEvent): void;
    message?(data: Json): void;
}

/** Of WS4Redis.share(), which ws4redis-shared.js adds. */
export interface ShareOptions extends ConnectOptions {
    /** Who the user is: tabs share a connection only if it is the same for them; '' for nobody. */
    identity: string;
    /** Where ws4redis-shared.js is, where it is no classic script of the page. */
    worker?: string;
    /** Where ws4redis.js is, where no script element of the page names it. */
    script?: string;
}

export interface HistoryRequest {
    limit?: number;
    since?: {epoch: string; offset: number};
    reverse?: boolean;
}

export interface Connection {
    subscribe<Data = Json>(channel: string, handlers?: Handlers<Data>): Subscription;
    /** Resolves when Redis has it; sent again after a reconnection, once in effect. */
    publish(channel: string, data: Json): Promise<void>;
    rpc<Result = Json>(method: string, data?: Json): Promise<Result>;
    presence(channel: string): Promise<{[client: string]: Client}>;
    history(channel: string, request?: HistoryRequest): Promise<{
        publications: Publication[];
        epoch: string;
        offset: number;
    }>;
    close(): void;
    get_state(): 0 | 1 | 2 | 3;
    /** An event stream needs ws4redis-streams.js. */
    get_transport(): 'websocket' | 'event-stream';
}

export interface SharedConnection extends Connection {
    /** Whether the connection is in a worker, for all tabs; known once it is connected. */
    is_shared(): boolean;
}

export interface WS4Redis {
    /** Throws a NotSupportedError over an event stream, which cannot send. */
    send_message(data: string | Blob | ArrayBuffer | ArrayBufferView): void;
    close(): void;
    get_state(): 0 | 1 | 2 | 3;
    get_transport(): 'websocket' | 'event-stream';
    is_connecting(): boolean;
    is_connected(): boolean;
    is_closing(): boolean;
    is_closed(): boolean;
}

export interface WS4RedisConstructor {
    new (options: Options, jquery?: unknown): WS4Redis;
    (options: Options, jquery?: unknown): WS4Redis;
    connect(options: ConnectOptions): Connection;
    /** There once ws4redis-shared.js is loaded. */
    share(options: ShareOptions): SharedConnection;
}

declare const WS4Redis: WS4RedisConstructor;
export {WS4Redis};
export default WS4Redis;
