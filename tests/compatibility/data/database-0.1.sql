CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE public.chunk (
    id character varying NOT NULL,
    job_id character varying NOT NULL,
    a bigint NOT NULL,
    b bigint NOT NULL,
    model character varying NOT NULL,
    state character varying NOT NULL,
    attempt integer NOT NULL,
    owner character varying,
    lease_exp double precision,
    not_before double precision NOT NULL,
    crashes integer NOT NULL,
    progress integer NOT NULL,
    plan_key character varying NOT NULL,
    plan_a bigint NOT NULL,
    first_line bigint NOT NULL,
    last_line bigint NOT NULL,
    n_tokens bigint NOT NULL,
    part_key character varying,
    part_sha256 character varying,
    n_ok integer NOT NULL,
    n_err integer NOT NULL,
    prompt_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    done_at double precision,
    engine_crashes integer DEFAULT 0 NOT NULL,
    CONSTRAINT done_counts CHECK ((((state)::text <> 'done'::text) OR ((n_ok + n_err) = (b - a)))),
    CONSTRAINT not_empty CHECK ((a < b))
);

CREATE TABLE public.file (
    id character varying NOT NULL,
    tenant_id character varying NOT NULL,
    purpose character varying NOT NULL,
    filename character varying NOT NULL,
    bytes bigint NOT NULL,
    object_key character varying NOT NULL,
    etag character varying NOT NULL,
    sha256 character varying NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision,
    deleted_at double precision
);

CREATE TABLE public.job (
    id character varying NOT NULL,
    tenant_id character varying NOT NULL,
    state character varying NOT NULL,
    idem_key character varying,
    idem_hash character varying,
    endpoint character varying NOT NULL,
    completion_window character varying NOT NULL,
    model character varying,
    input_file_id character varying NOT NULL,
    input_key character varying NOT NULL,
    input_etag character varying NOT NULL,
    input_sha256 character varying NOT NULL,
    metadata json,
    options json NOT NULL,
    output_expires_seconds integer,
    priority integer NOT NULL,
    cancel character varying,
    plan_epoch integer NOT NULL,
    fin_epoch integer NOT NULL,
    lease_owner character varying,
    lease_exp double precision,
    attempts integer NOT NULL,
    n_lines bigint,
    plan json,
    errors json,
    n_invalid bigint NOT NULL,
    report_file_id character varying,
    out_file_id character varying,
    err_file_id character varying,
    out_key character varying,
    err_key character varying,
    out_sha256 character varying,
    err_sha256 character varying,
    n_ok bigint NOT NULL,
    n_err bigint NOT NULL,
    n_cancelled bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    in_progress_at double precision,
    finalizing_at double precision,
    completed_at double precision,
    failed_at double precision,
    expired_at double precision,
    cancelling_at double precision,
    cancelled_at double precision,
    collected_at double precision,
    paused_at double precision,
    retry_of character varying
);

CREATE TABLE public.model (
    name character varying NOT NULL,
    source character varying NOT NULL,
    created_at double precision NOT NULL
);

INSERT INTO public.alembic_version VALUES ('0002');

INSERT INTO public.chunk VALUES ('chunk_01m8e8ga7t13nf38tjzbbcjkpq', 'batch_01m8e8g9mbb3ay5hwm9jxcm7k9', 0, 2, 'smollm2', 'done', 1, NULL, NULL, 0, 0, 2, 'plans/batch_01m8e8g9mbb3ay5hwm9jxcm7k9/1/0-2.arrow', 0, 1, 2, 72, 'parts/batch_01m8e8g9mbb3ay5hwm9jxcm7k9/0-2/1.jsonl', '1819cbc59d6cab4b366282e82dedf90ecac787c88e3a4155bf901213099f2dab', 2, 0, 72, 16, 16, 1795775024.7259946, 0);
INSERT INTO public.chunk VALUES ('chunk_01m8e8h4n4ccd5a2kzbym6jn7n', 'batch_01m8e8h424xgxfzzttrpgmhr43', 0, 4, 'smollm2', 'pending', 0, NULL, NULL, 0, 0, 0, 'plans/batch_01m8e8h424xgxfzzttrpgmhr43/1/0-4.arrow', 0, 1, 4, 136, NULL, NULL, 0, 0, 0, 0, 0, NULL, 0);

INSERT INTO public.file VALUES ('file-01m8e8g9jxx2n5d4dx6v1npbz0', 'default', 'batch', 'a.requests.jsonl', 354, 'files/default/file-01m8e8g9jxx2n5d4dx6v1npbz0', 'c7e16a5f750ae4aaada6916a2590356620d94ca20c2231015b00139d7926c343', 'c7e16a5f750ae4aaada6916a2590356620d94ca20c2231015b00139d7926c343', 1795775014.5070195, 1798367014.5070195, NULL);
INSERT INTO public.file VALUES ('file-01m8e8gkn1eanv39cs2q1t8vfc', 'default', 'batch_output', 'batch_01m8e8g9mbb3ay5hwm9jxcm7k9_output.jsonl', 1178, 'results/batch_01m8e8g9mbb3ay5hwm9jxcm7k9/1/output.jsonl', '92cf21a21c3a0ba22aa4e68ee16f5893136540e3f6c7693f2fdaa419aaa2578c', '92cf21a21c3a0ba22aa4e68ee16f5893136540e3f6c7693f2fdaa419aaa2578c', 1795775024.834986, NULL, NULL);
INSERT INTO public.file VALUES ('file-01m8e8h3zx2m9n82vxb4w37xbd', 'default', 'batch', 'b.requests.jsonl', 661, 'files/default/file-01m8e8h3zx2m9n82vxb4w37xbd', 'c7160339872c7d8e6611a9303125341ca09ed9dc7e7e7c02cb997ec915f1624a', 'c7160339872c7d8e6611a9303125341ca09ed9dc7e7e7c02cb997ec915f1624a', 1795775041.5489972, 1798367041.5489972, NULL);

INSERT INTO public.job VALUES ('batch_01m8e8g9mbb3ay5hwm9jxcm7k9', 'default', 'completed', 'dea91cdb3765db11e0dcd46566841377', '81b21cbe1c0716244def0752bf42abd03f282acdffb21daf50810def06f828d3', '/v1/chat/completions', '24h', 'smollm2', 'file-01m8e8g9jxx2n5d4dx6v1npbz0', 'files/default/file-01m8e8g9jxx2n5d4dx6v1npbz0', 'c7e16a5f750ae4aaada6916a2590356620d94ca20c2231015b00139d7926c343', 'c7e16a5f750ae4aaada6916a2590356620d94ca20c2231015b00139d7926c343', '{"input": "a.txt", "tidemill_run": "1"}', '{"on_invalid": "skip"}', NULL, 0, NULL, 1, 1, NULL, NULL, 0, 2, '{"lines": 2, "invalid_lines": 0, "duplicate_lines": 0, "prompt_tokens": 72, "unique_prompt_tokens": 72, "expected_cached_tokens": 16, "max_output_tokens": 16, "chunks": 1, "models": {"smollm2": 2}}', NULL, 0, NULL, 'file-01m8e8gkn1eanv39cs2q1t8vfc', NULL, 'results/batch_01m8e8g9mbb3ay5hwm9jxcm7k9/1/output.jsonl', NULL, '92cf21a21c3a0ba22aa4e68ee16f5893136540e3f6c7693f2fdaa419aaa2578c', NULL, 2, 0, 0, 72, 16, 16, 1795775014.5460055, 4949375014.546005, 1795775015.161009, 1795775024.7370183, 1795775024.8240023, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job VALUES ('batch_01m8e8h424xgxfzzttrpgmhr43', 'default', 'running', '246c4d0696ddfd6a78e88e1cf9f28c60', 'f0cf89322cea9a9abe519ad946ec9ea46846739bef67e28724e642f4323b2db5', '/v1/chat/completions', '24h', 'smollm2', 'file-01m8e8h3zx2m9n82vxb4w37xbd', 'files/default/file-01m8e8h3zx2m9n82vxb4w37xbd', 'c7160339872c7d8e6611a9303125341ca09ed9dc7e7e7c02cb997ec915f1624a', 'c7160339872c7d8e6611a9303125341ca09ed9dc7e7e7c02cb997ec915f1624a', '{"input": "b.txt"}', '{"on_invalid": "fail"}', NULL, 0, NULL, 1, 0, NULL, NULL, 0, 4, '{"lines": 4, "invalid_lines": 0, "duplicate_lines": 1, "prompt_tokens": 136, "unique_prompt_tokens": 102, "expected_cached_tokens": 66, "max_output_tokens": 24, "chunks": 1, "models": {"smollm2": 4}}', NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 1795775041.6109965, 4949375041.610996, 1795775042.2109933, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

INSERT INTO public.model VALUES ('smollm2', 'smollm2', 1795775014.1079874);

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY public.chunk
    ADD CONSTRAINT chunk_job_id_a_b_key UNIQUE (job_id, a, b);

ALTER TABLE ONLY public.chunk
    ADD CONSTRAINT chunk_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.file
    ADD CONSTRAINT file_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_tenant_id_idem_key_key UNIQUE (tenant_id, idem_key);

ALTER TABLE ONLY public.model
    ADD CONSTRAINT model_pkey PRIMARY KEY (name);

CREATE INDEX ix_chunk_claim ON public.chunk USING btree (state, model, not_before);

CREATE INDEX ix_chunk_job ON public.chunk USING btree (job_id, state, a);

CREATE INDEX ix_file_expiry ON public.file USING btree (expires_at);

CREATE INDEX ix_file_object ON public.file USING btree (object_key);

CREATE INDEX ix_file_tenant ON public.file USING btree (tenant_id, created_at, id);

CREATE INDEX ix_job_state_priority ON public.job USING btree (state, priority);

CREATE INDEX ix_job_tenant ON public.job USING btree (tenant_id, created_at, id);

ALTER TABLE ONLY public.chunk
    ADD CONSTRAINT chunk_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.job(id);
